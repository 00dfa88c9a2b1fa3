"""A short soak: random faults over a mixed load, and not one promise broken.

SEQPAR_SOAK_MINUTES is how long (4); SEQPAR_SOAK_SEED repeats one that failed.
"""
import json
import os
import pathlib
import subprocess
import sys
import unittest

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))
from cluster import RUN_MARK, wait_for  # noqa: E402

SOAK = FOLDER / "soak"
MINUTES = float(os.environ.get("SEQPAR_SOAK_MINUTES", 4))
SEED = os.environ.get("SEQPAR_SOAK_SEED")


def soak(*args):
    return subprocess.run([sys.executable, SOAK, *map(str, args)], capture_output=True, text=True)


def marked():
    """Processes of any run: [(pid, its folder)]."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            for setting in (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else ():
                if setting.startswith(f"{RUN_MARK}=".encode()):
                    found.append((int(entry.name), setting.decode().split("=", 1)[1]))
        except OSError:
            pass
    return found


class Soak(unittest.TestCase):
    def test_no_promise_is_broken(self):
        # Less than a soak wants, so that it is not INVALID; enough that something was broken at all.
        few = ["--min-faults", int(6 * MINUTES), "--min-jobs", int(6 * MINUTES), "--min-hits", 0]
        done = subprocess.run([sys.executable, SOAK, "--minutes", str(MINUTES), *map(str, few), *(["--seed", SEED] if SEED else []),
                               "-o", "json"], stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        print(json.dumps({k: found[k] for k in ("seed", "faults", "jobs", "attempts", "figures")}, indent=1))
        self.assertEqual(found["violations"], [], f"--seed {found['seed']}")
        self.assertEqual(found["short"], [])
        self.assertEqual(done.returncode, 0)

    def test_nothing_outlives_it(self):
        before = set(marked())
        process = subprocess.Popen([sys.executable, SOAK, "--minutes", "10"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if "workers are ready" in line:
                break
        started = set(marked()) - before
        self.assertGreaterEqual(len(started), 4)
        process.kill()
        process.wait()
        process.stderr.close()
        wait_for(lambda: not set(marked()) & started, "all that it had started to end", 10)
        for folder in {folder for _, folder in started}:
            subprocess.run(["rm", "-rf", folder], check=True)


class Usage(unittest.TestCase):
    def test_help_has_examples(self):
        said = soak("--help").stdout
        self.assertIn("tests/faults/soak --minutes 60 --seed 17", said)
        self.assertIn("exit codes", said)

    def test_bad_input_is_told(self):
        for args, said in ((["--minutes", "0"], "--minutes 0.0: the least is 0.1"), (["--live", "0"], "the least is 1"),
                           (["--only", "executor kiled"], "nearest: 'executor killed'"), (["--bin", "/nowhere"], "has no seqpar; build first")):
            done = soak(*args)
            self.assertEqual(done.returncode, 2)
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main()
