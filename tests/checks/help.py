#!/usr/bin/env python3
"""Checks that every command of the tree, and every program that was built, says how it is used before it does anything:
--help names it, has an example and ends with 0; a flag that it does not have ends with 2 and is named, or what is missing is.

usage: help.py ROOT BUILD
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

# What people start by its name. Suites of checks and tests are started by ctest.
FOLDERS = ["scripts", "docker", "tests/bench", "tests/gpu", "tests/faults", "tests/fuzz", "tests/skew", "deploy/grafana"]
# Runs within an image that is being made, where nobody asks.
NOT_FOR_PEOPLE = {"docker/install-runtime"}
SECONDS = 20
WRONG = "--no-such-flag"


def is_command(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    bench = path.parent.name == "bench" and path.suffix == ".py" and "__main__" in path.read_text()
    return bench or path.stat().st_mode & 0o100 != 0


def commands(root: pathlib.Path) -> list[pathlib.Path]:
    found = [path for folder in FOLDERS for path in sorted((root / folder).iterdir()) if is_command(path)]
    return [path for path in found if str(path.relative_to(root)) not in NOT_FOR_PEOPLE]


def programs(build: pathlib.Path) -> list[pathlib.Path]:
    return [path for folder in ("bin", "bench") for path in sorted(build.glob(f"{folder}/*")) if is_command(path)]


def run(command: pathlib.Path, flag: str) -> subprocess.CompletedProcess:
    python = command.suffix == ".py" or command.read_bytes().startswith(b"#!/usr/bin/env python3")
    interpreter = [sys.executable] if python else []
    with tempfile.TemporaryDirectory() as elsewhere:  # nor may it matter where it is called from
        line = [*interpreter, str(command), flag]
        process = subprocess.Popen(line, cwd=elsewhere, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        try:
            said = process.communicate(timeout=SECONDS)
            return subprocess.CompletedProcess(line, process.returncode, *said)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it has begun
            process.communicate()
            raise


def faults(name: str, command: pathlib.Path) -> list[str]:
    found = []
    try:
        asked, wrong = run(command, "--help"), run(command, WRONG)
    except subprocess.TimeoutExpired as error:
        return [f"{name}: did not end within {error.timeout:.0f} s: does it work in place of answering?"]
    if asked.returncode != 0:
        found.append(f"{name}: --help ends with {asked.returncode}: {asked.stderr.strip()[-300:]}")
    if command.name not in asked.stdout:
        found.append(f"{name}: --help does not name it")
    if not re.search(r"\bexamples?:", asked.stdout, re.I):
        found.append(f"{name}: --help has no example")
    if wrong.returncode != 2:
        found.append(f"{name}: {WRONG} ends with {wrong.returncode}, not 2: {wrong.stderr.strip()[-300:]}")
    elif WRONG not in wrong.stderr and "required" not in wrong.stderr:
        found.append(f"{name}: does not name a flag that it does not have")
    return found


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    root, build = (pathlib.Path(path).resolve() for path in sys.argv[1:])
    scripts, built = commands(root), programs(build)
    found = [line for path in scripts for line in faults(str(path.relative_to(root)), path)]
    found += [line for path in built for line in faults(str(path.relative_to(build)), path)]
    print("\n".join(found) or f"{len(scripts)} commands and {len(built)} programs answer --help")
    return 1 if found or len(scripts) < 25 or len(built) < 4 else 0


if __name__ == "__main__":
    sys.exit(main())
