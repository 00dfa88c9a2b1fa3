"""The images for CPUs: built with podman over a base that debootstrap makes, and run as a cluster would run them."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ["SEQPAR_BIN"])
sys.path.append(str(ROOT / "tests/e2e"))
from harness import scaled, wait_for  # noqa: E402

BASE = "localhost/seqpar-test-base:bookworm"
TAG = "test"
# As the restricted level of Pod Security, on a read-only root file system. runc, and limits that a container may set:
# so it also runs within one.
RESTRICTED = ["--runtime=runc", "--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096", "--read-only", "--cap-drop=ALL",
              "--security-opt=no-new-privileges", "--network=host", "--user=65532:65532"]


def podman(*args, check=True, timeout=600):
    done = subprocess.run(["podman", *map(str, args)], capture_output=True, text=True, timeout=scaled(timeout))
    if check and done.returncode != 0:
        raise AssertionError(f"podman {' '.join(map(str, args))}: {done.stdout}{done.stderr}")
    return done


class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run([ROOT / "docker/base-image", BASE], check=True, timeout=scaled(1200), stdout=subprocess.DEVNULL)
        subprocess.run([ROOT / "docker/build", "--tool", "podman", "--base", BASE, "--tag", TAG, "--prebuilt", BIN.parent],
                       check=True, timeout=scaled(1200))

    @classmethod
    def tearDownClass(cls):
        for name in ("coordinator", "worker"):
            podman("image", "rm", "--force", f"localhost/seqpar/{name}:{TAG}", check=False)

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-images-"))
        self.addCleanup(shutil.rmtree, self.dir)
        for folder in ("data", "coordinator", "worker"):
            (self.dir / folder).mkdir()
        for path in (self.dir, *self.dir.iterdir()):
            os.chown(path, 65532, 65532)

    def inspect(self, name):
        return json.loads(podman("image", "inspect", f"localhost/seqpar/{name}:{TAG}").stdout)[0]

    def run_image(self, name, *args):
        """Starts a container in the background; its id."""
        container = podman("run", "--detach", *RESTRICTED, "--tmpfs=/tmp", f"--volume={self.dir}/data:/data",
                           f"--volume={self.dir}/{name}:/var/lib/seqpar", f"localhost/seqpar/{name}:{TAG}", *args
                           ).stdout.strip()
        self.addCleanup(podman, "rm", "--force", "--time=0", container, check=False)
        return container

    def test_small_labelled_without_root_and_without_a_compiler(self):
        for name in ("coordinator", "worker"):
            with self.subTest(name):
                image = self.inspect(name)
                print(f"    {name}: {image['Size'] / 1e6:.0f} MB", flush=True)
                self.assertLess(image["Size"], 300e6)
                self.assertEqual(image["Config"]["User"], "65532:65532")
                self.assertEqual(image["Config"]["Entrypoint"], [f"seqpar-{name}"])
                for label in ("title", "description", "version", "revision", "base.name"):
                    self.assertTrue(image["Config"]["Labels"].get(f"org.opencontainers.image.{label}"), label)
                self.assertEqual(image["Config"]["Labels"]["org.opencontainers.image.version"], TAG)
                env = dict(e.partition("=")[::2] for e in image["Config"]["Env"])
                self.assertEqual(env[f"SEQPAR_{name.upper()}_LOG_FORMAT"], "json")
                self.assertNotIn("NVIDIA_VISIBLE_DEVICES", env)
                found = podman("run", "--rm", *RESTRICTED, "--entrypoint=sh", f"localhost/seqpar/{name}:{TAG}", "-c",
                               "command -v gcc g++ cc c++ as ld cmake ninja python3 nvcc; id -u", check=False).stdout.split()
                self.assertEqual(found[-1:], ["65532"])
                self.assertEqual(found[:-1], [])

    def test_a_job_runs_in_them_and_the_first_process_reaps_and_ends(self):
        coordinator = self.run_image("coordinator", "--listen=127.0.0.1:0", "--port-file=/var/lib/seqpar/port",
                                     "--metrics-listen=off", "--data-root=data=/data")
        port_file = self.dir / "coordinator/port"
        server = wait_for(lambda: port_file.exists() and port_file.read_text().strip(), "the coordinator's port")
        worker = self.run_image("worker", f"--coordinator={server}", "--node-name=node-a", "--cpu-slots=2",
                                "--threads-per-slot=1", "--memory-per-slot=1GiB", "--metrics-listen=off",
                                "--data-root=data=/data")
        job = self.dir / "data/job.yaml"
        job.write_text(json.dumps({
            "config": {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2},
            "weights": {"seed": 1}, "input": {"seed": 2, "tokens": 301}, "workers": {"min": 2, "max": 2},
            "output": {"file": "out.safetensors"}, "verify": {"rows": 2}}))
        done = podman("exec", coordinator, "seqpar", "--server", server, "submit", "-f", "/data/job.yaml", "--wait",
                      timeout=180)
        print(done.stdout[-400:], flush=True)
        self.assertGreater((self.dir / "data/out.safetensors").stat().st_size, 0)
        self.assertEqual((self.dir / "data/out.safetensors").stat().st_uid, 65532)
        for container in (coordinator, worker):
            with self.subTest(container):
                # A process whose parent is gone belongs to process 1, the daemon.
                self.assertIn("seqpar-", podman("exec", container, "cat", "/proc/1/comm").stdout)
                podman("exec", container, "sh", "-c", "(true & exec true)")
                wait_for(lambda: " Z " not in podman("exec", container, "sh", "-c", "cat /proc/[0-9]*/stat").stdout,
                         "zombies to be reaped")
                for line in podman("logs", container).stderr.splitlines():
                    json.loads(line)
                podman("stop", "--time=60", container)
                self.assertEqual(podman("wait", container).stdout.strip(), "0")


if __name__ == "__main__":
    missing = [tool for tool in ("podman", "runc", "debootstrap") if shutil.which(tool) is None]
    if missing or os.getuid() != 0:
        print(f"SKIPPED: needs root and {', '.join(missing) or 'nothing else'} (scripts/install-deps --images)")
        sys.exit(77)
    unittest.main(verbosity=2)
