#!/usr/bin/env python3
"""Installs client/python into a folder of the build, from a copy: nothing is written into the tree.

usage: build_package.py INTERPRETER TREE TARGET
The interpreter has pip, setuptools and grpcio-tools; exit code 77 (skipped) where it has not.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile


def copy_sources(tree, to):
    """What a build of the package reads, at the places where the tree has it."""
    ignore = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__", "*_pb2.py*", "descriptors.pb")
    shutil.copytree(tree / "client" / "python", to / "client" / "python", ignore=ignore)
    shutil.copytree(tree / "proto", to / "proto")
    return to / "client" / "python"


def main():
    interpreter, tree, target = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    if not pathlib.Path(interpreter).exists() or subprocess.run(
            [interpreter, "-c", "import setuptools, pip, grpc_tools"], capture_output=True).returncode:
        print("SKIPPED: tests/.venv has no grpcio-tools; scripts/install-deps --tests installs it")
        return 77
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        package = copy_sources(tree, pathlib.Path(scratch))
        return subprocess.run([interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps",
                               "--no-build-isolation", "--no-index", "--target", str(target), str(package)]).returncode


if __name__ == "__main__":
    sys.exit(main())
