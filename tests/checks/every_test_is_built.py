#!/usr/bin/env python3
"""Checks that every *_test.cc under tests/ is known to the build: a test that is not built is a test that passes.

usage: every_test_is_built.py ROOT BUILD
"""
import pathlib
import sys


def main() -> int:
    root, build = map(pathlib.Path, sys.argv[1:3])
    ninja = (build / "build.ninja").read_text()
    tests = [p for p in sorted((root / "tests").rglob("*_test.*")) if ".venv" not in p.parts]
    missing = [p.relative_to(root).as_posix() for p in tests
               if p.suffix == ".cc" and p.relative_to(root).as_posix() not in ninja]
    ctest = "".join(p.read_text() for p in build.rglob("CTestTestfile.cmake"))
    missing += [p.relative_to(root).as_posix() for p in tests if p.suffix == ".py" and p.name not in ctest]
    for path in missing:
        print(f"{path} is in no build file")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
