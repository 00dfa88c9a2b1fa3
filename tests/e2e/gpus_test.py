"""GPUs as the service sees them, on a machine that has none (fake_gpus.py)."""
import json
import unittest

from fake_gpus import GIB, FakeGpus
from harness import ClusterTest, scaled, wait_for


class Gpus(ClusterTest):
    slots = 2
    autostart = False
    metrics = True

    def setUp(self):
        super().setUp()
        self.gpus = FakeGpus(self.dir / "gpus", 2)

    def start_gpu_worker(self, name="node-gpu", *more):
        env = {**self.gpus.environment(), "NCCL_COMM_ID": "10.0.0.1:1", "NCCL_DEBUG": "WARN"}
        worker = self.start_worker(name, "--devices", "cuda", "--test-gpu-retry", 0.2, *more, env=env)
        self.wait_ready(name)
        return worker

    def node(self, name):
        return [n for n in self.cli("nodes")["nodes"] if n["name"] == name][0]

    def set_aside(self, device, name="node-gpu"):
        return self.node(name)["devices"][device].get("set_aside", "")

    def nodes_of(self, job):
        return {d.split("/")[0] for d in job["attempts"][-1]["devices"]}

    def test_inventory_and_links_are_shown(self):
        self.start_coordinator()
        worker = self.start_gpu_worker("node-gpu", "--labels", "pool=a")
        node = self.node("node-gpu")
        gpu = node["devices"][1]["spec"]
        self.assertEqual((gpu["kind"], gpu["name"]), ("cuda", "Fake GPU"))
        facts = gpu["gpu"]
        self.assertEqual(facts["uuid"], "GPU-1")
        self.assertEqual(facts["compute_capability"], "9.0")
        self.assertEqual(facts["pci_bus_id"], "0000:2b:00.0")
        self.assertEqual(int(facts["idle_bytes"]), 600 << 20)
        self.assertEqual(facts["nvlinks"], [{"device": 0, "links": 18}])
        self.assertEqual(node["labels"], {"pool": "a"})
        self.assertGreater(gpu["rates"]["gemm_flops"], 0)
        self.assertEqual([a["head_dim"] for a in gpu["rates"]["attention"]], [64, 128])
        self.assertNotEqual(node["local"]["bandwidth"], 1e11, "assumed, not measured")
        log = worker.log.read_text()
        self.assertIn("NCCL_DEBUG=WARN", log)
        self.assertNotIn("NCCL_COMM_ID", log, "it would join strangers")

    def test_a_job_gets_devices_of_the_kind_and_the_labels_that_it_asks_for(self):
        self.start_coordinator()
        self.start_gpu_worker("node-gpu")
        self.start_worker("node-cpu", "--labels", "pool=a")
        self.wait_ready("node-cpu")
        two = {"min": 2, "max": 2}
        for kind in ("cpu", "cuda"):
            done = self.wait_succeeded(self.submit(self.write_job(workers=two, devices=kind)))
            self.assertEqual(self.nodes_of(done), {f"node-{'gpu' if kind == 'cuda' else 'cpu'}"})
        done = self.wait_succeeded(self.submit(self.write_job(workers=two, devices={"selector": {"pool": "a"}})))
        self.assertEqual(self.nodes_of(done), {"node-cpu"})
        # What no node has is waited for, with the reason, and holds up nobody.
        waits = self.submit(self.write_job(workers=two, devices={"kind": "cpu", "selector": {"pool": "b"}}))
        reason = wait_for(lambda: self.get(waits).get("reason"), "a reason")
        self.assertIn("waits for 2 cpu devices on nodes with pool=b, 0 attached; attached nodes have pool a", reason)
        self.wait_succeeded(self.submit(self.write_job(workers=two, devices="cpu")))
        self.start_worker("node-b", "--labels", "pool=b")
        self.assertEqual(self.nodes_of(self.wait_succeeded(waits)), {"node-b"})

    def test_a_gpu_whose_memory_stays_held_is_set_aside_and_comes_back(self):
        self.start_coordinator()
        worker = self.start_gpu_worker()
        job = {"workers": {"min": 2, "max": 2}}
        self.wait_succeeded(self.submit(self.write_job(**job)))
        self.wait_succeeded(self.submit(self.write_job(**job)))  # given away again
        self.gpus.used[1] += GIB
        self.gpus.write()
        # What holds it is seen at the end of this job, or already at the end of the one before; then this one waits too.
        next_job = self.submit(self.write_job(**job))
        wait_for(lambda: self.set_aside(1), "the GPU to be set aside")
        self.assertIn("1.00 GiB more than when it was idle", self.set_aside(1))
        self.assertEqual(self.set_aside(0), "")
        worker_metrics = self.scrape("node-gpu")
        self.assertEqual(worker_metrics.sum("seqpar_device_set_aside", device="1"), 1)
        self.assertEqual(worker_metrics.sum("seqpar_device_set_aside"), 1)
        self.assertEqual(len(worker_metrics.find("seqpar_device_info", device="1", UUID="GPU-1", kind="cuda")), 1)
        wait_for(lambda: self.scrape("coordinator").sum("seqpar_devices", state="SET_ASIDE") == 1, "it to be counted")
        waits = self.submit(self.write_job(**job))
        reason = wait_for(lambda: self.get(waits).get("reason"), "a reason")
        self.assertIn("waits for 2 devices, 1 attached", reason)
        self.wait_succeeded(self.submit(self.write_job(workers={"min": 1, "max": 1})))
        self.gpus.used[1] -= GIB
        self.gpus.write()
        self.wait_succeeded(next_job)
        done = self.wait_succeeded(waits)
        self.assertEqual(len(done["attempts"]), 1, json.dumps(done["attempts"]))
        self.assertEqual(self.set_aside(1), "")
        self.assertEqual(self.scrape("node-gpu").sum("seqpar_device_set_aside"), 0)
        self.assertIn("device set aside", worker.log.read_text())
        self.assertIn("device is back", worker.log.read_text())

    def test_a_driver_that_hangs_costs_its_gpus_and_nothing_else(self):
        self.start_coordinator()
        worker = self.start_gpu_worker()
        self.gpus.extra = ["hang nvmlDeviceGetMemoryInfo"]
        self.gpus.write()
        self.wait_succeeded(self.submit(self.write_job(workers={"min": 2, "max": 2})))
        wait_for(lambda: self.set_aside(0) and self.set_aside(1), "the GPUs to be set aside")
        self.assertRegex(self.set_aside(0), "cannot be looked at: (NVML: no answer in time|.* hangs in the driver)|"
                                            "nothing was seen of its memory")
        self.assertIsNone(worker.popen.poll())
        self.assertEqual(self.node_states()["node-gpu"], "READY")
        self.gpus.extra = []
        self.gpus.write()
        wait_for(lambda: not self.set_aside(0) and not self.set_aside(1), "the GPUs to come back")
        self.wait_succeeded(self.submit(self.write_job(workers={"min": 2, "max": 2})))

    def test_without_nvml_gpus_run_and_the_log_says_what_is_not_known(self):
        self.start_coordinator()
        self.gpus.extra = ["fail nvmlInit_v2 999"]
        self.gpus.write()
        worker = self.start_gpu_worker()
        self.assertNotIn("idle_bytes", self.node("node-gpu")["devices"][0]["spec"]["gpu"])
        self.assertIn("NVML: start: Unknown Error", worker.log.read_text())
        for _ in range(2):
            self.wait_succeeded(self.submit(self.write_job(workers={"min": 2, "max": 2})))

    def test_a_gpu_that_cannot_be_measured_is_set_aside_and_the_node_joins_with_the_others(self):
        self.start_coordinator()
        self.gpus.extra = ["fail device-1 79"]
        self.gpus.write()
        worker = self.start_gpu_worker()
        self.assertEqual(self.set_aside(0), "")
        self.assertIn("it cannot be measured: ", self.set_aside(1))
        self.assertIn("GPU 1: error 79", self.set_aside(1))
        self.wait_succeeded(self.submit(self.write_job(workers={"min": 1, "max": 1})))
        waits = self.submit(self.write_job(workers={"min": 2, "max": 2}))
        reason = wait_for(lambda: self.get(waits).get("reason"), "a reason")
        self.assertIn("waits for 2 devices, 1 attached", reason)
        self.gpus.extra = []
        self.gpus.write()
        wait_for(lambda: self.set_aside(1) == "", "the GPU to come back")
        self.wait_succeeded(waits)
        self.assertIn("device is back", worker.log.read_text())

    def test_several_ranks_on_one_gpu(self):
        self.start_coordinator()
        worker = self.start_gpu_worker("node-gpu", "--test-ranks-per-gpu", 2)
        devices = self.node("node-gpu")["devices"]
        self.assertEqual([d["spec"]["gpu"]["ordinal"] for d in devices], [0, 0, 1, 1])
        self.assertIn("NCCL_HOSTID=node-gpu-rank-", worker.log.read_text())
        for _ in range(2):
            self.wait_succeeded(self.submit(self.write_job(workers={"min": 4, "max": 4})))


if __name__ == "__main__":
    unittest.main()
