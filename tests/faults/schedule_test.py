"""Schedules and loads: a seed says all of it, and an hour of any seed is enough of everything."""
import collections
import itertools
import os
import pathlib
import random
import sys
import unittest

os.environ.setdefault("SEQPAR_BIN", ".")  # nothing is started
os.environ["SEQPAR_TEST_TIME_FACTOR"] = "1"  # an hour of an ordinary build
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from failpoints import arming, provocation_of, turns  # noqa: E402
from faults import KINDS, schedule, usable  # noqa: E402
from load import KINDS as JOBS, jobs  # noqa: E402
from plans import mesh_of, pinned_to  # noqa: E402

HOUR = 3600


class Schedules(unittest.TestCase):
    def draw(self, seed, kinds=None):
        return schedule(random.Random(f"faults {seed}"), HOUR, kinds or usable(True, True))

    def test_a_seed_repeats_its_schedule(self):
        self.assertEqual(self.draw(3), self.draw(3))
        self.assertNotEqual(self.draw(3), self.draw(4))

    def test_an_hour_has_enough_of_each_kind(self):
        for seed in range(5):
            planned = self.draw(seed)
            self.assertGreater(len(planned), 700)
            counts = collections.Counter(p.kind for p in planned)
            self.assertEqual(set(counts), set(KINDS))
            self.assertGreater(min(counts.values()), 10, counts)

    def test_faults_come_alone_and_together(self):
        over, alone, together = 0, 0, 0
        for fault in self.draw(1):
            together += fault.at < over
            alone += fault.at >= over
            over = max(over, fault.at + fault.length)
        self.assertGreater(alone, 200)
        self.assertGreater(together, 200)

    def test_what_cannot_be_had_is_not_planned(self):
        kinds = usable(False, False)
        self.assertNotIn("host cut off", kinds)
        self.assertNotIn("slow disk", kinds)
        self.assertNotIn("disk of the data full", kinds)
        self.assertIn("executor killed", kinds)
        self.assertEqual({p.kind for p in self.draw(1, kinds)}, set(kinds))


class Armings(unittest.TestCase):
    POINTS = [{"name": "executor.merge.fsync", "actions": ["crash", "error", "delay", "in_flight"]},
              {"name": "daemon.kill", "actions": ["delay", "hang"]}, {"name": "coordinator.plan", "actions": ["crash"]}]

    def draw(self, seed, points=POINTS, chances=None, busy=0):
        """(armings, hits) of an hour. `chances`: of each point to be passed, by name; one that is not stays armed for
        `busy` turns."""
        chance = random.Random(f"passed {seed}")
        hits, tries, armed, found = collections.Counter(), collections.Counter(), {}, []
        for number, turn in enumerate(turns(random.Random(f"failpoints {seed}"), HOUR)):
            armed = {point: until for point, until in armed.items() if until > number}
            one = arming(turn, number, points, hits, tries, armed, 3)
            found.append(one)
            tries[one.point] += 1
            if chance.random() < (chances or {}).get(one.point, 1):
                hits[one.point] += 1
            else:
                armed[one.point] = number + busy
        return found, hits

    def test_a_seed_repeats_them(self):
        self.assertEqual(self.draw(3), self.draw(3))
        self.assertNotEqual(self.draw(3), self.draw(4))

    def test_each_point_has_its_turn_and_what_it_honours(self):
        drawn, _ = self.draw(1)
        counts = collections.Counter(a.point for a in drawn)
        self.assertLessEqual(max(counts.values()) - min(counts.values()), 1)
        actions = {}
        for one in drawn:
            actions.setdefault(one.point, set()).add(one.line.split()[0])
        self.assertEqual(actions, {p["name"]: set(p["actions"]) for p in self.POINTS})

    def test_what_is_armed_is_left_alone(self):
        turn = turns(random.Random(1), HOUR)[0]
        none = collections.Counter()
        names = [p["name"] for p in self.POINTS]
        for left in names:
            for number in (0, 1):
                self.assertEqual(arming(turn, number, self.POINTS, none, none, set(names) - {left}, 3).point, left)
        self.assertIsNone(arming(turn, 0, self.POINTS, none, none, names, 3))

    def test_an_hour_is_enough_for_a_hundred_points_of_which_some_are_seldom_passed(self):
        points = [{"name": f"point-{n}", "actions": ["crash"]} for n in range(100)]
        chances = {p["name"]: 0.1 if n < 2 else 0.3 if n < 20 else 0.8 for n, p in enumerate(points)}
        for seed in range(5):
            _, hits = self.draw(seed, points, chances, busy=5)
            self.assertGreaterEqual(min(hits[p["name"]] for p in points), 3, hits)

    def test_one_that_is_never_passed_takes_little_from_the_others(self):
        points = [{"name": f"point-{n}", "actions": ["crash"]} for n in range(100)]
        _, hits = self.draw(1, points, {"point-0": 0, "point-1": 0}, busy=5)
        self.assertGreaterEqual(min(hits[p["name"]] for p in points[2:]), 4)

    def test_what_a_load_seldom_passes_is_brought_about(self):
        for point in ("coordinator.start.term", "daemon.start", "coordinator.store.backup", "coordinator.send.stop", "daemon.kill"):
            self.assertIsNotNone(provocation_of(point), point)
        self.assertIsNone(provocation_of("executor.layer.forward"))


class Loads(unittest.TestCase):
    def draw(self, seed, count=400):
        return list(itertools.islice(jobs(random.Random(f"load {seed}")), count))

    def test_a_seed_repeats_its_jobs(self):
        self.assertEqual(self.draw(3), self.draw(3))
        self.assertNotEqual(self.draw(3), self.draw(4))

    def test_it_is_mixed(self):
        drawn = self.draw(1)
        self.assertEqual({entry["kind"] for entry in drawn}, set(JOBS))
        specs = [entry["spec"] for entry in drawn]
        strategies = {spec.get("parallelism", {}).get("strategy", "auto") for spec in specs}
        self.assertEqual(strategies, {"auto", "megatron_sp", "ulysses", "ring", "gather", "hybrid"})
        for something in (lambda e: e["submits"] > 1, lambda e: e["cancel_after"] is not None, lambda e: "verify" in e["spec"],
                          lambda e: e["spec"].get("pass") == "forward_backward", lambda e: e["spec"]["priority"] > 0,
                          lambda e: e["spec"]["max_attempts"] < 3, lambda e: "deadline" in e["spec"],
                          lambda e: "output" not in e["spec"]):
            self.assertGreater(sum(map(something, drawn)), 5)

    def test_outputs_have_names_of_their_own(self):
        files = [entry["spec"]["output"]["file"] for entry in self.draw(2) if "output" in entry["spec"]]
        self.assertEqual(len(files), len(set(files)))


class Plans(unittest.TestCase):
    def test_meshes_are_read(self):
        self.assertEqual(mesh_of("1"), {"tensor": 1, "ulysses": 1, "ring": 1})
        self.assertEqual(mesh_of("T2 x U3 x R4 (inner 2)"), {"tensor": 2, "ulysses": 3, "ring": 4, "inner": 2})

    def test_a_plan_is_asked_for_again(self):
        report = {"strategy": "ring", "mesh": "R3", "layout": "zigzag", "core": "ring", "recompute": "none"}
        spec = pinned_to(JOBS["auto"][1], report)
        self.assertEqual(spec["workers"], {"min": 3, "max": 3})
        self.assertEqual(spec["parallelism"], {"strategy": "ring", "tensor": 1, "ulysses": 1, "ring": 3, "layout": "zigzag"})
        self.assertEqual(spec["recompute"], "none")


if __name__ == "__main__":
    unittest.main()
