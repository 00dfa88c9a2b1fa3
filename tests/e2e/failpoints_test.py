"""Failpoints in real processes: some armed in each, and every job still ends exactly once; and all of them are passed."""
import json
import os
import signal
import subprocess
import time
import unittest

from harness import BIN, ClusterTest, read_safetensors, scaled, wait_for

OUTPUT = "out.safetensors"


class Armed(ClusterTest):
    def failpoints(self):
        return "--test-failpoints", self.dir / "failpoints"

    def start_coordinator(self, *more):
        return super().start_coordinator(*self.failpoints(), *more)

    def start_worker(self, name, *more, **options):
        return super().start_worker(name, *self.failpoints(), *more, **options)

    def arm(self, name, line):
        """Whole or not at all, as processes look for it meanwhile."""
        elsewhere = self.dir / "arming"
        elsewhere.write_text(line + "\n")
        elsewhere.rename(self.dir / "failpoints" / "armed" / name)

    def armed(self):
        return sorted(p.name for p in (self.dir / "failpoints" / "armed").iterdir())

    def hits(self):
        """[(failpoint, action)] in the order in which they were taken."""
        file = self.dir / "failpoints" / "hits.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        self.assertEqual([line for line in lines if "refused" in line], [])
        return [(line["name"], line["action"]) for line in lines]


class Failpoints(Armed):
    lease = "20s"  # a busy machine is no lost node

    def setUp(self):
        self.coordinator_ends = []  # exit codes
        super().setUp()

    def mend(self):
        """Starts a coordinator again that a failpoint has ended. False where none had."""
        code = self.coordinator.popen.poll()
        if code is None:
            return False
        self.coordinator_ends.append(code)
        try:
            self.start_coordinator()
        except AssertionError:
            # One more failpoint ended it on its way up: the next call starts it again.
            if self.coordinator.popen.poll() is None:
                raise
        return True

    def submit_once(self, path, request):
        """The id of the job of a request, asked for until there is an answer."""
        def answered():
            self.mend()
            code, out, _ = self.run_cli("submit", "-f", path, "--request-id", request)
            return code == 0 and json.loads(out)["id"]
        return wait_for(answered, "a submit to be answered")

    def end_of(self, job):
        def ended():
            if self.mend():
                return None
            state = self.cli("get", job, check=False)
            return state if state and state["state"] not in ("JOB_STATE_PENDING", "JOB_STATE_RUNNING") else None
        return wait_for(ended, f"job {job} to end")

    def run_job(self, armed):
        """What became of a job while `armed` was, every point of which is taken exactly once."""
        before = len(self.hits())
        for name, line in armed.items():
            self.arm(name, line)
        name = f"job-{time.monotonic_ns()}"
        # One plan, however the planner's figures change: then the bits are the same.
        path = self.write_job(name=name, output={"file": OUTPUT, "overwrite": True}, max_attempts=6,
                              parallelism={"strategy": "ring", "ring": 4, "layout": "zigzag"})
        job = self.submit_once(path, name)
        done = self.end_of(job)
        self.assertEqual(done["state"], "JOB_STATE_SUCCEEDED", json.dumps(done.get("error"), indent=1))
        self.assertEqual([j["id"] for j in self.cli("list", "--limit", 1000)["jobs"] if j["name"] == name], [job])
        self.assertEqual(self.armed(), [])
        self.assertEqual(sorted(self.hits()[before:]),
                         sorted((name, line.split()[0]) for name, line in armed.items()))
        wait_for(lambda: not self.staged(), "staging files to be gone")
        return done, read_safetensors(self.data / OUTPUT)["hidden_states"][2].tobytes()

    def test_every_job_ends_exactly_once(self):
        _, undisturbed = self.run_job({})
        # Two attempts are lost, each by one rank.
        done, output = self.run_job({"executor.layer.forward": "crash",
                                     "executor.merge.fsync": "error who=executor:node-a:2"})
        self.assertEqual([a["error"]["details"][0]["reason"] for a in done["attempts"][:-1]],
                         ["RANK_FAILED", "STORAGE"])
        self.assertEqual(output, undisturbed)
        # None is: streams break, answers are late, and nothing is lost with them.
        done, output = self.run_job({"coordinator.receive.blob": "drop_request",
                                     "daemon.send.finished": "drop_request skip=1",
                                     "daemon.receive.heartbeat": "delay 100",
                                     "executor.send.progress": "drop_request",
                                     "coordinator.rpc.submit": "drop_response"})
        self.assertEqual(len(done["attempts"]), 1)
        self.assertEqual(output, undisturbed)
        self.assertEqual(self.coordinator_ends, [])
        # The coordinator dies around what it promises.
        done, output = self.run_job({"coordinator.store.submit": "in_flight",
                                     "coordinator.store.attempt": "crash",
                                     "coordinator.store.result": "drop_response",
                                     "coordinator.commit.rename": "in_flight",
                                     "coordinator.store.end": "in_flight"})
        self.assertEqual(len(done["attempts"]), 1)
        self.assertEqual(output, undisturbed)
        self.assertEqual(self.coordinator_ends, [-9, -9, 1, -9, -9])
        # So does a disk that fails.
        for point in ("coordinator.store.fsync", "coordinator.store.write"):
            self.arm(point, "error")
            self.run_cli("submit", "-f", self.write_job())  # whether or not it comes to an answer
            self.assertEqual(self.coordinator.popen.wait(scaled(30)), 1)
            self.assertIn("the job store cannot be written: ", (self.dir / "coordinator.log").read_text()
                          .replace(' error="', ": "))
            self.mend()
        self.wait_ready("node-a")


class Edges(Armed):
    """On which edge a gang stands: where a rank does not come to a collective, and where what was sent does not arrive."""
    lease = "20s"
    step_timeout = "5s"

    def verdict(self, point, line):
        """What is said of the first attempt of a ring of three."""
        self.arm(point, line)
        job = self.submit(self.write_job(
            config={"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 64,
                    "num_hidden_layers": 100},
            input={"seed": 2, "tokens": 300}, workers={"min": 3, "max": 3}, parallelism={"strategy": "ring", "ring": 3}))
        error = self.wait_succeeded(job)["attempts"][0]["error"]
        self.assertEqual(error["details"][0]["reason"], "NO_PROGRESS")
        return error["message"]

    def test_is_in_the_verdict(self):
        layer = r"no progress for 5 s: rank 2 on node-a/\d: phase execute, layer \d+, forward, step \d+"
        self.assertRegex(self.verdict("executor.layer.forward", "hang skip=50 who=executor:node-a:2"),
                         layer + r"; rank 1 on node-a/\d waits for it in ring #\d+, which it has not entered \(missing enter\)$")
        self.assertRegex(self.verdict("executor.exchange", "drop_request skip=100 who=executor:node-a:1"),
                         layer + r"; in ring #\d+, waits for rank 1; rank 1 on node-a/\d has left it \(missing exit\)$")


class Every(Armed):
    """A point that nothing passes would be one that nothing tests: jobs, faults and restarts that together pass all."""
    autostart = False
    layers = {"config": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
                         "intermediate_size": 64, "num_hidden_layers": 100, "rope_theta": 10000.0},
              "input": {"seed": 2, "tokens": 500}, "workers": {"min": 2, "max": 2}}

    def start_coordinator(self, *more):
        return super().start_coordinator("--checkpoint-interval", "1ms", *more)

    def start_worker(self, name):
        worker = super().start_worker(name, "--test-hold", f"execute:{self.hold}", slots=2)
        self.wait_ready(name)
        return worker

    def held_job(self, **changes):
        """(a job that executors hold, those executors)"""
        self.hold.touch()
        job = self.submit(self.write_job(**{**self.layers, **changes}))
        wait_for(lambda: self.get(job).get("phase") == "JOB_PHASE_EXECUTE", "the job to be held")
        return job, wait_for(lambda: self.executors(self.worker), "executors")

    def released(self, job):
        self.hold.unlink()
        return self.wait_succeeded(job)

    def test_is_passed(self):
        self.hold = self.dir / "hold-execute"
        (self.dir / "failpoints" / "armed").mkdir(parents=True)
        names = {point["name"] for point in json.loads(listed("seqpar-coordinator"))}
        for name in names:
            self.arm(name, "delay 0")
        self.start_coordinator()
        self.worker = self.start_worker("node-a")
        self.cli("backup")
        self.cli("drain", "node-a")
        self.cli("drain", "node-a", "--undo")
        # Checkpoints; and verified, backward.
        self.wait_succeeded(self.submit(self.write_job(**self.layers, output={"file": OUTPUT, "overwrite": True})))
        self.wait_succeeded(self.submit(self.write_job(**{"pass": "forward_backward"}, grad_output={"seed": 3},
                                                       verify={"rows": 2}, workers={"min": 2, "max": 2})))
        # A rank that dies, and a coordinator that does while a job runs.
        job, executors = self.held_job()
        os.kill(executors[0], signal.SIGKILL)
        wait_for(lambda: (self.get(job).get("attempts") or [{}])[0].get("error"), "the first attempt to fail")
        self.released(job)
        job, _ = self.held_job()
        self.coordinator.kill()
        self.start_coordinator()
        self.released(job)
        # One that does not listen.
        job, executors = self.held_job()
        os.kill(executors[0], signal.SIGSTOP)
        self.cli("cancel", job)
        self.wait_ended(job)
        # A node that is lost, and one that is told to stop.
        self.worker.kill()
        wait_for(lambda: "coordinator.node.lost" not in self.armed(), "the lease of node-a to be over")
        self.worker = self.start_worker("node-a")
        self.worker.kill(signal.SIGTERM)
        self.assertEqual(self.armed(), [])
        self.assertEqual({name for name, _ in self.hits()}, names)


def listed(program):
    return subprocess.run([BIN / program, "--list-failpoints", "-o", "json"], capture_output=True, check=True,
                          text=True).stdout


class List(unittest.TestCase):
    def test_both_programs_have_the_same(self):
        self.assertEqual(listed("seqpar-coordinator"), listed("seqpar-worker"))
        self.assertGreaterEqual(len(json.loads(listed("seqpar-worker"))), 41)


if __name__ == "__main__":
    unittest.main()
