#!/usr/bin/env python3
"""Runs a test file by an interpreter, against the package in a folder.

usage: run.py INTERPRETER PACKAGE_FOLDER TEST_FILE
Prints which grpcio and protobuf it met; exit code 77 (skipped) where the interpreter lacks what the package needs.
"""
import os
import pathlib
import subprocess
import sys

VERSIONS = ("import grpc, google.protobuf, numpy, yaml; "
            "print('grpcio', grpc.__version__, 'protobuf', google.protobuf.__version__, 'numpy', numpy.__version__)")


def main():
    interpreter, package, test = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    found = None
    if pathlib.Path(interpreter).exists():
        found = subprocess.run([interpreter, "-c", VERSIONS], capture_output=True, text=True)
    if found is None or found.returncode or not (pathlib.Path(package) / "seqpar").is_dir():
        print(f"SKIPPED: {interpreter} has no grpcio, protobuf, numpy or yaml; scripts/install-deps --tests installs them")
        return 77
    print(interpreter, found.stdout.strip(), flush=True)
    paths = [package, str(test.parent), str(test.parents[2] / "e2e")]
    return subprocess.run([interpreter, str(test), "-v"], env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}).returncode


if __name__ == "__main__":
    sys.exit(main())
