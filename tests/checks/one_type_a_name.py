#!/usr/bin/env python3
"""Checks that no two headers of what ships define a type of one name in one namespace: a file that includes both does not
compile, and where none does, the linker merges what it takes for one type's functions.

usage: one_type_a_name.py ROOT
"""
import collections
import pathlib
import re
import sys

FOLDERS = ("common", "coordinator", "worker", "client")
# At the edge of the line: within no class. Namespaces are the file's outermost.
NAMESPACE = re.compile(r"^namespace ([\w:]+) \{", re.M)
TYPE = re.compile(r"^(?:struct|class|union|enum class|enum) (?:alignas\(\w+\) )?(\w+)\b[^;\n]*\{", re.M)
ALIAS = re.compile(r"^using (\w+) =", re.M)


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    headers = collections.defaultdict(list)
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.*h")):
            text = path.read_text()
            namespace = NAMESPACE.search(text)
            for name in sorted(set(TYPE.findall(text) + ALIAS.findall(text))):
                headers[namespace[1] if namespace else "", name].append(path.relative_to(root).as_posix())
    if len(headers) < 100:
        print(f"only {len(headers)} types found under {root}")
        return 1
    twice = {name: paths for name, paths in headers.items() if len(paths) > 1}
    for (namespace, name), paths in twice.items():
        print(f"{namespace}::{name} is defined by {' and '.join(paths)}")
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main())
