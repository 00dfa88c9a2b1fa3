"""What is made of a history: times of what was found, and whether enough happened."""
import argparse
import os
import pathlib
import sys
import unittest

os.environ.setdefault("SEQPAR_BIN", ".")  # nothing is started
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from figures import measure, summary  # noqa: E402
from history import History  # noqa: E402
from verdict import FAILED, INVALID, judge, table  # noqa: E402

LEASE, STEP = 4, 5


def stage(t, name, attempt, why=""):
    return {"t": t, "message": "job", "job": "j-1", "stage": name, "attempt": str(attempt), "why": why}


def execute(t, attempt, rank):
    return {"t": t, "message": "phase begins", "phase": "execute", "job": "j-1", "attempt": str(attempt), "rank": str(rank)}


def fault(number, kind, begin, end, node="node-a"):
    return [{"t": begin, "what": "fault begins", "fault": number, "kind": kind, "node": node},
            {"t": end, "what": "fault ends", "fault": number, "kind": kind}]


def history(found, kind="executor killed", end=100.0, more=()):
    """A fault at 100 on node-a under attempt 1, found `found` seconds later; stopped 0.25 s and again at work 2 s after."""
    at = 100 + found
    return History(
        driver=[*fault(1, kind, 100.0, end), *more],
        coordinators=[[stage(90, "running", 1), stage(at, "stopping", 1, "rank 0 on node-a/1 failed"),
                       stage(at + 0.25, "queued", 1, "rank 0 on node-a/1 failed"), stage(at + 1, "placing", 1),
                       stage(at + 1.5, "running", 2)]],
        workers={"node-a": [[execute(95, 1, 0), execute(at + 1.75, 2, 0)]], "node-b": [[execute(at + 2, 2, 1)]]})


class Figures(unittest.TestCase):
    def test_from_the_fault_to_the_next_attempt(self):
        self.assertEqual(measure(history(0.5), LEASE, STEP),
                         {"executor killed": {"found": [0.5], "stopped": [0.25], "first_tile": [2.0]}})

    def test_beyond_its_deadline(self):
        for kind, wait in (("worker stopped", LEASE), ("executor stopped", STEP)):
            got = measure(history(wait + 0.5, kind, end=110.0), LEASE, STEP)
            self.assertEqual(got[kind]["found"], [0.5])

    def test_beyond_the_deadline_of_its_phase(self):
        run = history(8.5, "executor stopped", end=110.0)
        for record in run.coordinators[0]:
            record["why"] = "no progress for 8 s: rank 0 on node-a/1: phase shard"
        self.assertEqual(measure(run, LEASE, STEP)["executor stopped"]["found"], [0.5])

    def test_what_was_over_before_its_deadline_is_not_to_be_found(self):
        self.assertEqual(measure(history(2.0, "worker stopped", end=102.0), LEASE, STEP), {})

    def test_only_what_met_nothing_else(self):
        self.assertEqual(measure(history(0.5, more=fault(2, "loss", 95.0, 101.0)), LEASE, STEP), {})
        got = measure(history(0.5, more=fault(2, "loss", 101.0, 102.0)), LEASE, STEP)
        self.assertEqual(got["executor killed"], {"found": [0.5], "stopped": [0.25], "first_tile": []})

    def test_a_verdict_on_another_node_is_not_its(self):
        other = history(0.5)
        other.driver[0]["node"] = "node-b"
        self.assertEqual(measure(other, LEASE, STEP), {})

    def test_percentiles(self):
        got = summary({"x": {"found": [float(i) for i in range(1, 101)], "stopped": [], "first_tile": [1.0]}})
        self.assertEqual(got, {"x": {"found": {"n": 100, "p50": 50.5, "p99": 100.0},
                                     "first_tile": {"n": 1, "p50": 1.0, "p99": 1.0}}})


class Verdict(unittest.TestCase):
    def judge(self, faults=1, jobs=0, hits=0, points=("a",), settled=True):
        run = history(0.5)
        run.driver.insert(0, {"t": 0, "what": "run", "seed": 7, "seconds": 60, "isolated": True})
        run.end = {"settled": settled, "failpoints": list(points), "hits": [{"name": "a"}], "kept_jobs": 100}
        return judge(run, argparse.Namespace(min_faults=faults, min_jobs=jobs, min_hits=hits))

    def test_enough_happened(self):
        self.assertEqual(self.judge()["exit_code"], 0)

    def test_too_little_is_invalid(self):
        for few, said in (({"faults": 600}, "1 faults of at least 600"), ({"jobs": 300}, "0 ended jobs of at least 300"),
                          ({"hits": 3}, "under 3 hits of 1 of 1 failpoints: a"),
                          ({"hits": 1, "points": ("a", "b")}, "under 1 hits of 1 of 2 failpoints: b")):
            found = self.judge(**few)
            self.assertEqual((found["short"], found["exit_code"]), ([said], INVALID))
            self.assertIn(f"INVALID: {said}", table(found))

    def test_a_violation_goes_before(self):
        found = self.judge(faults=600, settled=False)
        self.assertEqual(found["exit_code"], FAILED)
        self.assertIn("VIOLATION of 'everything settles'", table(found))


if __name__ == "__main__":
    unittest.main()
