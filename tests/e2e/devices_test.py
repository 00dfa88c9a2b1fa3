"""A worker that is asked for GPUs where there may be none."""
import subprocess
import time
import unittest

from harness import BIN, ClusterTest, environment, scaled


class Devices(ClusterTest):
    autostart = False

    def has_gpu(self):
        return subprocess.run([str(BIN / "seqpar-worker"), "probe-gpus"], capture_output=True, env=environment(),
                              timeout=scaled(120)).returncode == 0

    def test_without_a_gpu_cuda_is_refused_with_what_is_missing(self):
        if self.has_gpu():
            self.skipTest("this machine has a GPU")
        begin = time.monotonic()
        done = subprocess.run([str(BIN / "seqpar-worker"), "--coordinator", "127.0.0.1:1", "--devices", "cuda",
                               "--state-dir", str(self.dir / "state")], capture_output=True, text=True,
                              env=environment(), timeout=scaled(60))
        print(f"    said so after {time.monotonic() - begin:.2f} s", flush=True)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("--devices=cuda", done.stderr)
        self.assertTrue(any(text in done.stderr for text in ("no NVIDIA driver", "no GPUs can be used", "no GPU")),
                        done.stderr)

    def test_auto_takes_slots_where_there_is_no_gpu(self):
        self.start_coordinator()
        self.start_worker("node-a", "--devices", "auto")
        self.wait_ready("node-a")
        node = [n for n in self.cli("nodes")["nodes"] if n["name"] == "node-a"][0]
        kinds = {device["spec"]["kind"] for device in node["devices"]}
        self.assertEqual(kinds, {"cuda"} if self.has_gpu() else {"cpu"})
        self.wait_succeeded(self.submit(self.write_job()))

    def test_a_kind_that_is_none_is_a_wrong_command_line(self):
        done = subprocess.run([str(BIN / "seqpar-worker"), "--devices", "tpu"], capture_output=True, text=True,
                              env=environment(), timeout=scaled(30))
        self.assertEqual(done.returncode, 2)
        self.assertIn("cuda", done.stderr + done.stdout)


if __name__ == "__main__":
    unittest.main()
