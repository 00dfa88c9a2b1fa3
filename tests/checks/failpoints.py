#!/usr/bin/env python3
"""Checks that every failpoint of the table (common/base/failpoint_table.cc) stands at exactly one place of the code, and
that the code names no other.

usage: failpoints.py ROOT
"""
import collections
import pathlib
import re
import sys

NAME = re.compile(r'"((?:coordinator|daemon|executor)\.[a-z_.]+)"')
TABLE = "common/base/failpoint_table.cc"


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__, file=sys.stderr)
        return 0 if "--help" in sys.argv or "-h" in sys.argv else 2
    root = pathlib.Path(sys.argv[1])
    table = NAME.findall((root / TABLE).read_text())
    placed = collections.defaultdict(list)
    for top in ("common", "coordinator", "worker"):
        for file in sorted((root / top).rglob("*")):
            path = file.relative_to(root).as_posix()
            if path != TABLE and file.suffix in (".h", ".cc", ".cu"):
                for number, line in enumerate(file.read_text().splitlines(), 1):
                    for name in NAME.findall(line.split("//")[0]):
                        placed[name].append(f"{path}:{number}")
    errors = [f"{name} stands twice in {TABLE}" for name, n in collections.Counter(table).items() if n > 1]
    errors += [f"{name} stands nowhere in the code" for name in table if not placed[name]]
    errors += [f"{name} stands at {', '.join(at)}" for name, at in placed.items() if len(at) > 1]
    errors += [f"{at[0]}: {name} is not in {TABLE}" for name, at in placed.items() if at and name not in table]
    for error in errors:
        print(error)
    print(f"{len(table)} failpoints, {len(errors)} errors")
    return 1 if errors or not table else 0


if __name__ == "__main__":
    sys.exit(main())
