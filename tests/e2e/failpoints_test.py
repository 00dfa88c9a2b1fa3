"""Failpoints in real processes: a handful armed in each of them, and every job still ends exactly once."""
import json
import subprocess
import time
import unittest

from harness import BIN, ClusterTest, read_safetensors, scaled, wait_for

OUTPUT = "out.safetensors"


class Failpoints(ClusterTest):
    lease = "20s"  # a busy machine is no lost node

    def setUp(self):
        self.coordinator_ends = []  # exit codes
        super().setUp()

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

    def mend(self):
        """Starts a coordinator again that a failpoint has ended. False where none had."""
        code = self.coordinator.popen.poll()
        if code is None:
            return False
        self.coordinator_ends.append(code)
        self.start_coordinator()
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

    def run_job(self, armed, **changes):
        """What became of a job while `armed` was, every point of which is taken exactly once."""
        before = len(self.hits())
        for name, line in armed.items():
            self.arm(name, line)
        name = f"job-{time.monotonic_ns()}"
        path = self.write_job(name=name, output={"file": OUTPUT, "overwrite": True}, max_attempts=6, **changes)
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


class List(unittest.TestCase):
    def test_both_programs_have_the_same_list(self):
        def listed(program):
            return subprocess.run([BIN / program, "--list-failpoints", "-o", "json"], capture_output=True, check=True,
                                  text=True).stdout
        self.assertEqual(listed("seqpar-coordinator"), listed("seqpar-worker"))
        self.assertGreaterEqual(len(json.loads(listed("seqpar-worker"))), 41)


if __name__ == "__main__":
    unittest.main()
