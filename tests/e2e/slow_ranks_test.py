"""A rank whose process gets little of its core: its job goes on without its device, from its checkpoint."""
import os
import signal
import threading
import unittest

from harness import ClusterTest, alive, read_safetensors, relative_error, wait_for

NODES = ("node-a", "node-b", "node-c")
# Long enough for a fast machine too: that a rank stays slow takes seconds to see.
LONG = {"config": {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256,
                   "num_hidden_layers": 250, "rope_theta": 10000.0},
        "input": {"seed": 2, "tokens": 2500}, "output": {"file": "out.safetensors", "overwrite": True},
        "workers": {"min": 2, "max": 2}, "parallelism": {"strategy": "ring", "ring": 2}}
STOPPED, RUNNING = 0.06, 0.005  # seconds of each turn


class Slowed:
    """Stops the executors of a worker for most of the time, whichever they are, until the block ends."""

    def __init__(self, cluster, worker):
        self.cluster, self.worker, self.end = cluster, worker, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def send(self, sig):
        for pid in self.cluster.executors(self.worker):
            if alive(pid):
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass

    def run(self):
        while not self.end.is_set():
            self.send(signal.SIGSTOP)
            self.end.wait(STOPPED)
            self.send(signal.SIGCONT)
            self.end.wait(RUNNING)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        self.send(signal.SIGCONT)


class SlowRanks(ClusterTest):
    lease = "20s"
    slots = 1
    metrics = True
    autostart = False

    def setUp(self):
        super().setUp()
        self.start_coordinator("--replace-slow-ranks", "3", "--checkpoint-interval", "500ms")
        self.workers = {node: self.start_worker(node) for node in NODES}
        self.wait_ready(*NODES)

    def executes(self, job):
        wait_for(lambda: self.get(job).get("phase") == "JOB_PHASE_EXECUTE", "its layers to begin")

    def test_the_job_goes_on_without_the_slow_device(self):
        self.wait_succeeded(self.submit(self.write_job(**LONG)), 180)
        undisturbed = read_safetensors(self.data / "out.safetensors")["hidden_states"][2]
        job = self.submit(self.write_job(**LONG))
        self.executes(job)
        slow = self.get(job)["attempts"][0]["devices"][1]
        with Slowed(self, self.workers[slow.split("/")[0]]):
            done = self.wait_succeeded(job, 180)
        self.assertEqual(len(done["attempts"]), 2)
        first, second = done["attempts"]
        self.assertEqual(first["error"]["details"][0]["reason"], "SLOW_RANK")
        self.assertIn(f"rank 1 on {slow}", first["error"]["message"])
        self.assertTrue(first["not_counted"])
        self.assertNotIn(slow, second["devices"])
        output = read_safetensors(self.data / "out.safetensors")["hidden_states"][2]
        self.assertLess(relative_error(output, undisturbed), 1e-5)
        self.assertEqual(self.scrape("coordinator").sum("seqpar_slow_ranks_replaced_total"), 1)
        self.assertEqual(self.scrape("coordinator").sum("seqpar_attempt_failures_total"), 0)
        self.assertIn(f"rank 1 on {slow} took", (self.dir / "coordinator.log").read_text())


if __name__ == "__main__":
    unittest.main()
