"""Attempts that go on from a checkpoint: of another plan, on another node, after a crash of anybody."""
import os
import signal
import unittest

from harness import ClusterTest, read_safetensors, relative_error, wait_for

# Layers that take their time, so that a fault falls between two of them.
LONG = {"config": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 64,
                   "num_hidden_layers": 300, "rope_theta": 10000.0},
        "input": {"seed": 2, "tokens": 1000}, "output": {"file": "out.safetensors", "overwrite": True}}
RING2 = {"workers": {"min": 2, "max": 2}, "parallelism": {"strategy": "ring", "ring": 2}}


class Recovery(ClusterTest):
    lease = "20s"
    autostart = False

    def setUp(self):
        super().setUp()
        self.start_coordinator("--checkpoint-interval", "1ms")
        self.worker = self.start_worker("node-a")
        self.wait_ready("node-a")

    def staged(self):
        return [p.name for p in self.data.rglob(".*seqpar*")]

    def checkpoints(self, job):
        """The numbers of layers behind the job's whole checkpoints."""
        return [int(p.name.rsplit("-", 1)[1]) for p in self.data.glob(f".out.safetensors.seqpar-{job}-*.checkpoint-*")
                if not p.name.endswith(".partial")]

    def wait_checkpoint(self, job):
        wait_for(lambda: self.checkpoints(job), "a checkpoint")
        self.assertEqual(self.get(job)["state"], "JOB_STATE_RUNNING", "too short a job for this machine")

    def output(self):
        return read_safetensors(self.data / "out.safetensors")["hidden_states"][2]

    def undisturbed(self, **changes):
        self.wait_succeeded(self.submit(self.write_job(**{**LONG, **RING2, **changes})), 180)
        return self.output()

    def resumed(self, job, want, attempts=2):
        done = self.wait_succeeded(job, 180)
        self.assertEqual(len(done["attempts"]), attempts)
        last = done["attempts"][-1]
        self.assertGreater(last.get("first_layer", 0), 0)
        self.assertLess(relative_error(self.output(), want), 1e-5)
        self.assertEqual(self.staged(), [])
        return done

    def test_after_an_executor_was_killed(self):
        want = self.undisturbed()
        job = self.submit(self.write_job(**LONG, **RING2))
        self.wait_checkpoint(job)
        os.kill(self.executors(self.worker)[0], signal.SIGKILL)
        self.resumed(job, want)
        self.assertEqual(list(self.output()), list(want), "the same plan has the same bits")

    def test_planned_again_on_the_node_that_is_left(self):
        want = self.undisturbed()
        other = self.start_worker("node-b", slots=3)
        self.wait_ready("node-b")
        job = self.submit(self.write_job(**LONG, workers={"min": 3, "max": 4}, parallelism={"strategy": "ring"}))
        self.wait_checkpoint(job)
        used = {d.split("/")[0] for d in self.get(job)["attempts"][0]["devices"]}
        first, left = (self.worker, "node-b") if "node-a" in used else (other, "node-a")
        first.kill(signal.SIGTERM)  # told to stop: at the next checkpoint, long before the drain's time is over
        done = self.resumed(job, want)
        self.assertEqual({d.split("/")[0] for d in done["attempts"][1]["devices"]}, {left})
        self.assertTrue(done["attempts"][0]["not_counted"])

    def test_across_a_crash_of_the_coordinator(self):
        want = self.undisturbed()
        job = self.submit(self.write_job(**LONG, **RING2))
        self.wait_checkpoint(job)
        self.coordinator.kill()
        self.worker.kill()
        self.start_coordinator("--checkpoint-interval", "1ms")
        self.worker = self.start_worker("node-a")
        self.resumed(job, want)

    def test_a_cancelled_job_leaves_none(self):
        job = self.submit(self.write_job(**LONG, **RING2))
        self.wait_checkpoint(job)
        self.cli("cancel", job)
        self.assertEqual(self.wait_ended(job)["state"], "JOB_STATE_CANCELLED")
        wait_for(lambda: not self.staged(), "checkpoints to be gone")


if __name__ == "__main__":
    unittest.main()
