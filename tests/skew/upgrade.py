#!/usr/bin/env python3
"""Real processes of two versions, in both directions, as a fleet that is upgraded has them. Run by scripts/test --skew.

SEQPAR_BIN has this tree's programs, SEQPAR_OLD_BIN those of the release before.
"""
import contextlib
import os
import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402
from harness import wait_for  # noqa: E402
from held import OUTPUT, Held  # noqa: E402

NEW = pathlib.Path(os.environ["SEQPAR_BIN"])
OLD = pathlib.Path(os.environ["SEQPAR_OLD_BIN"])


def release_of(folder):
    said = subprocess.run([folder / "seqpar-worker", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[-1].split(".")[:2]


@contextlib.contextmanager
def programs(folder):
    """What is started meanwhile is from that folder."""
    before, harness.BIN = harness.BIN, folder
    try:
        yield
    finally:
        harness.BIN = before


class Upgrade(Held):
    """A job spans both nodes: ranks of two versions meet."""
    autostart = False
    lease = "30s"
    slots = 2

    def setUp(self):
        super(Held, self).setUp()  # starts nothing

    def start(self, coordinator, workers):
        with programs(coordinator):
            self.start_coordinator()
        self.workers = {}
        for name, folder in workers.items():
            with programs(folder):
                self.workers[name] = self.start_worker(name)
        self.wait_ready(*workers)

    def runs_a_job(self, **changes):
        done = self.succeeds(self.submit(self.job_file(verify={"rows": 8}, **changes)), attempts=1)
        self.assertTrue(done["report"]["verification"]["ran"])
        output = harness.read_safetensors(self.data / OUTPUT)["hidden_states"][2]
        (self.data / OUTPUT).unlink()
        return done, output

    def test_coordinator_first_then_workers_one_after_another(self):
        self.start(OLD, {"node-a": OLD, "node-b": OLD})
        _, before = self.runs_a_job()
        # A gang that runs meanwhile never notices that its coordinator is another one.
        self.hold_file("executor", "execute").touch()
        job = self.submit(self.job_file())
        self.wait_executors_held("execute", job)
        executors = sorted(e for worker in self.workers.values() for e in self.executors(worker))
        self.coordinator.kill()
        with programs(NEW):
            self.start_coordinator()
        self.wait_ready("node-a", "node-b")
        self.assertEqual(sorted(e for w in self.workers.values() for e in self.executors(w)), executors)
        self.release("executor", "execute")
        self.succeeds(job, attempts=1)
        (self.data / OUTPUT).unlink()
        # What the store of the old one has is there.
        self.assertEqual(len(self.cli("list")["jobs"]), 2)

        self.assertEqual(self.runs_a_job()[1].tobytes(), before.tobytes(), "old workers, new coordinator")
        self.upgrade("node-a")
        done, mixed = self.runs_a_job()
        self.assertEqual({d["device"].split("/")[0] for d in done["report"]["ranks"]}, {"node-a", "node-b"})
        # Another version's kernels may round otherwise.
        self.assertLess(harness.relative_error(mixed, before), 1e-5, "ranks of both versions")
        self.upgrade("node-b")
        self.assertLess(harness.relative_error(self.runs_a_job()[1], before), 1e-5, "all new")

    def upgrade(self, node):
        self.cli("drain", node)
        self.workers[node].kill(harness.signal.SIGTERM)
        self.cli("drain", node, "--undo")
        with programs(NEW):
            self.workers[node] = self.start_worker(node)
        self.wait_ready(node)

    def test_old_clients_with_a_new_coordinator(self):
        self.start(NEW, {"node-a": NEW, "node-b": NEW})
        with programs(OLD):
            self.runs_a_job()
            job = self.submit(self.job_file(name="old"))
            self.wait_succeeded(job)
            self.assertTrue(self.cli("plan", "-f", self.data / "job.yaml")["plan"]["ranks"])
            self.assertEqual({n["name"] for n in self.cli("nodes")["nodes"]}, {"node-a", "node-b"})
            self.assertIn(job, [j["id"] for j in self.cli("list")["jobs"]])
            self.assertTrue(self.cli("logs", job)["logs"])
            self.cli("watch", job)
            refused, _, _ = self.run_cli("submit", "-f", self.write_job("bad.yaml", input={"seed": 2}))
            self.assertNotEqual(refused, 0)

    def test_a_new_worker_before_its_coordinator(self):
        self.start(OLD, {"node-a": OLD})
        with programs(NEW):
            self.workers["node-b"] = self.start_worker("node-b")
        if release_of(NEW) == release_of(OLD):  # patches of one release understand each other
            self.wait_ready("node-b")
            self.runs_a_job()
            return
        wait_for(lambda: "upgrade the coordinator first" in (self.dir / "node-b.log").read_text(), "a refusal by name")
        self.assertEqual(set(self.node_states()), {"node-a"})
        self.coordinator.kill()
        with programs(NEW):
            self.start_coordinator()
        self.wait_ready("node-a", "node-b")
        self.runs_a_job()


if __name__ == "__main__":
    unittest.main(verbosity=2)
