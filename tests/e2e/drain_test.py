"""Workers that are told to stop, and workers that are killed, while a job runs on them."""
import os
import signal
import socket
import subprocess
import unittest

from harness import BIN, alive, scaled, wait_for
from held import Held


class Drain(Held):
    lease = "20s"  # what happens here happens without waiting for one
    worker_flags = ()

    def start_worker(self, name, *more, **options):
        return super().start_worker(name, *self.worker_flags, *more, **options)

    def draining(self, name="node-a"):
        self.wait_node(name, "DRAINING")

    def ended(self, worker):
        wait_for(lambda: worker.popen.poll() is not None, "the worker to end")
        self.assertEqual(worker.popen.returncode, 0)

    def again(self):
        self.worker = self.start_worker("node-a")
        self.wait_ready("node-a")


class LongDrain(Drain):
    worker_flags = ("--drain-seconds", "600")
    metrics = True

    def test_running_ranks_end_and_the_worker_after_them(self):
        with self.held("executor", "execute"):
            job = self.held_job("executor", "execute")
            self.assertEqual(self.http("node-a", "/readyz"), (200, "ok\n"))
            self.worker.kill(signal.SIGTERM, wait=False)
            self.draining()
            self.assertEqual(self.http("node-a", "/readyz"), (503, "this worker was told to stop\n"))
            self.assertEqual(self.http("node-a", "/healthz")[0], 200)
            waits = self.submit(self.write_job("waits.yaml"))
            wait_for(lambda: "waits for a node" in self.get(waits).get("reason", ""), "the next job to wait")
            self.release("executor", "execute")
            self.succeeds(job, attempts=1)
            self.ended(self.worker)
            self.again()
            self.assertEqual(len(self.wait_succeeded(waits)["attempts"]), 1)

    def test_a_second_signal_stops_them(self):
        with self.held("executor", "execute"):
            job = self.held_job("executor", "execute", max_attempts=1)
            executors = self.executors(self.worker)
            self.worker.kill(signal.SIGTERM, wait=False)
            self.draining()
            self.assertTrue(all(alive(e) for e in executors))
            self.worker.kill(signal.SIGTERM, wait=False)
            self.ended(self.worker)
            self.assertFalse(any(alive(e) for e in executors))
            self.release("executor", "execute")
            self.again()
            # It had one attempt and has it still.
            first = self.succeeds(job, attempts=2)["attempts"][0]
            self.assertTrue(first["not_counted"])
            self.assertEqual(first["error"]["details"][0]["reason"], "NODE_DRAINED")

    def test_a_node_that_drains_is_not_waited_for_and_another_takes_its_place(self):
        with self.held("executor", "execute"):
            job = self.held_job("executor", "execute")
            self.worker.kill(signal.SIGTERM, wait=False)
            self.draining()
            other = self.start_worker("node-b")
            self.wait_ready("node-b")
            following = self.submit(self.write_job("following.yaml"))
            self.wait_executors_held("execute", following)
            self.assertEqual({d.split("/")[0] for d in self.get(following)["attempts"][0]["devices"]}, {"node-b"})
            self.release("executor", "execute")
            self.succeeds(job, attempts=1)
            self.wait_succeeded(following)
            self.ended(self.worker)
            other.kill(signal.SIGTERM)
            self.again()

    def test_a_worker_without_ranks_ends_at_once(self):
        self.worker.kill(signal.SIGTERM, wait=False)
        self.ended(self.worker)

    def test_killed_it_leaves_no_executor(self):
        with self.held("executor", "shard"):
            job = self.held_job("executor", "shard")
            executors = self.executors(self.worker)
            self.worker.kill(signal.SIGTERM, wait=False)
            self.draining()
            os.kill(self.worker.pid, signal.SIGKILL)
            wait_for(lambda: not any(alive(e) for e in executors), "executors to end with their daemon")
            self.worker.popen.wait()
            self.cli("cancel", job)
            self.again()


class Orphan(unittest.TestCase):
    """The second of the two ways in which an executor ends with its daemon: the daemon's end of its channel is gone, while
    the process that started it lives."""

    def test_ends_with_its_channel(self):
        ours, its = socket.socketpair()
        executor = subprocess.Popen([BIN / "seqpar-worker", "executor", "--channel-fd", str(its.fileno())],
                                    pass_fds=[its.fileno()], stderr=subprocess.PIPE)
        its.close()
        ours.close()
        _, said = executor.communicate(timeout=scaled(30))
        self.assertEqual(executor.returncode, 3, said)


class ShortDrain(Drain):
    worker_flags = ("--drain-seconds", "1")

    def test_ranks_that_do_not_end_in_time_are_stopped_and_cost_no_attempt(self):
        with self.held("executor", "execute"):
            job = self.held_job("executor", "execute", max_attempts=1)
            other = self.start_worker("node-b")
            self.wait_ready("node-b")
            self.worker.kill(signal.SIGTERM, wait=False)
            self.ended(self.worker)
            # Not only once the lease is over: the next attempt begins on what is left.
            self.wait_executors_held("execute", job, attempt=2)
            self.release("executor", "execute")
            done = self.succeeds(job, attempts=2)
            self.assertEqual({d.split("/")[0] for d in done["attempts"][1]["devices"]}, {"node-b"})
            self.assertTrue(done["attempts"][0]["not_counted"])
            self.assertIn("the worker on node-a was told to stop", done["attempts"][0]["error"]["message"])
            other.kill(signal.SIGTERM)
            self.again()


if __name__ == "__main__":
    unittest.main()
