"""Links between two idle nodes: measured by executors of both, kept, used by plans, and given up for a job at once."""
import os
import signal
import subprocess
import unittest

from harness import BIN, ClusterTest, environment, wait_for


class Links(ClusterTest):
    autostart = False
    slots = 2
    metrics = True
    measure_links = "300ms"

    def setUp(self):
        super().setUp()
        self.start_coordinator()

    def start_workers(self, *more):
        self.workers = [self.start_worker(name, *more) for name in ("node-a", "node-b")]
        self.wait_ready("node-a", "node-b")

    def links(self, node="node-a"):
        nodes = self.cli("nodes", check=False) or {}
        return [link for n in nodes.get("nodes", []) if n["name"] == node for link in n.get("links", [])]

    def measurements(self, outcome):
        return self.scrape("coordinator").sum("seqpar_link_measurements_total", outcome=outcome)

    def wait_measured(self):
        return wait_for(lambda: [link for link in self.links() if not link.get("outdated")], "the link to be measured")

    def wait_measuring(self):
        wait_for(lambda: all(len(self.executors(w)) == self.slots for w in self.workers), "a gang of both nodes")
        return [e for w in self.workers for e in self.executors(w)]

    def test_idle_nodes_are_measured_and_plans_follow(self):
        self.start_workers()
        (link,) = self.wait_measured()
        (back,) = self.links("node-b")
        self.assertEqual((link["peer"], back["peer"], link["device_kind"]), ("node-b", "node-a", "cpu"))
        self.assertEqual(link["rates"], back["rates"])
        print(f"... loopback: {link['rates']['bandwidth'] / 1e9:.2f} GB/s, {link['rates']['latency'] * 1e6:.0f} us")
        # Whatever the machine: a second at most for eight bytes, and more than a floppy disk's rate.
        self.assertLess(link["rates"]["latency"], 1)
        self.assertGreater(link["rates"]["bandwidth"], 1e5)
        wait_for(lambda: not any(self.executors(w) for w in self.workers), "its executors to be gone")
        plan = self.cli("plan", "-f", self.write_job())
        self.assertIn("measured between node-a and node-b", plan["plan"]["reason"])
        self.wait_succeeded(self.submit(self.data / "job.yaml"))
        self.assertEqual((self.measurements("measured"), self.measurements("failed")), (1, 0))
        table = subprocess.run([str(BIN / "seqpar"), "--server", self.server, "nodes"], capture_output=True, text=True,
                               check=True, env=environment()).stdout
        self.assertIn("node-a to node-b (cpu): ", table)

        with self.subTest("a coordinator that is started anew knows it"):
            self.coordinator.kill()
            self.start_coordinator()
            self.wait_ready("node-a", "node-b")
            self.assertEqual(self.links(), [link])

        with self.subTest("a node that is another is measured again"):
            self.workers[1].kill(signal.SIGTERM)
            self.workers[1] = self.start_worker("node-b", env={"UCX_RNDV_THRESH": "1m"})
            self.wait_ready("node-b")
            again = wait_for(lambda: [x for x in self.links() if x["measure_time"] != link["measure_time"]],
                             "the link to be measured again")
            self.assertFalse(again[0].get("outdated"))

    def test_a_job_does_not_wait_for_it(self):
        hold = self.dir / "hold"
        hold.touch()
        self.start_workers("--test-hold", f"bootstrap:{hold}")
        measuring = self.wait_measuring()
        job = self.submit(self.write_job())
        # On the same devices, while what measures would stand still for ever.
        wait_for(lambda: len(found := [e for w in self.workers for e in self.executors(w)]) == 4 and
                 not set(found) & set(measuring), "the job's executors in their place")
        hold.unlink()
        self.assertEqual(len(self.wait_succeeded(job)["attempts"]), 1)
        self.assertGreaterEqual(self.measurements("interrupted"), 1)
        self.assertEqual(self.measurements("failed"), 0)

    def test_a_rank_that_dies_harms_nobody_else(self):
        hold = self.dir / "hold"
        hold.touch()
        self.start_workers("--test-hold", f"bootstrap:{hold}")
        os.kill(self.wait_measuring()[0], signal.SIGKILL)
        wait_for(lambda: self.measurements("failed") == 1, "the failure to be counted")
        wait_for(lambda: not any(self.executors(w) for w in self.workers), "the other executors to be gone")
        hold.unlink()
        self.assertEqual(len(self.wait_succeeded(self.submit(self.write_job()))["attempts"]), 1)
        self.assertEqual(set(self.node_states().values()), {"READY"})
        self.assertEqual(self.scrape("coordinator").sum("seqpar_attempt_failures_total"), 0)


if __name__ == "__main__":
    unittest.main()
