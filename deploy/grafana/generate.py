#!/usr/bin/env python3
"""Writes the dashboards, dashboards/*.json, from their sources: fleet.py, job.py, communication.py, coordinator.py.

usage: generate.py [--check]

  (default)  writes every dashboard whose source has changed
  --check    writes nothing; exit code 1 where a file is not what its source makes

examples:
  deploy/grafana/generate.py
  deploy/grafana/generate.py --check
"""
import json
import pathlib
import sys

sys.dont_write_bytecode = True

import communication  # noqa: E402
import coordinator  # noqa: E402
import fleet  # noqa: E402
import job  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"


def text_of(dashboard):
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


def main(arguments):
    if arguments in (["-h"], ["--help"]):
        print(__doc__.strip())
        return 0
    if arguments not in ([], ["--check"]):
        print(f"generate.py: {arguments[0]} is not --check", file=sys.stderr)
        return 2
    wanted = {FOLDER / f"{module.__name__}.json": text_of(module.make())
              for module in (fleet, job, communication, coordinator)}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    unknown = sorted(set(FOLDER.glob("*.json")) - set(wanted))
    for path in unknown:
        print(f"{path.name} has no source", file=sys.stderr)
    for path in stale:
        if arguments:
            print(f"{path.name} is not what its source makes: run deploy/grafana/generate.py", file=sys.stderr)
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(wanted[path])
            print(f"wrote {path.name}")
    return 1 if unknown or (arguments and stale) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
