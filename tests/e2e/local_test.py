"""`seqpar local`: up, a job, down; twice; with a killed process; interrupted. Nothing is ever left running."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest
import urllib.request

from harness import BIN, alive, children_of, environment, scaled, wait_for


class Local(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-local-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.addCleanup(self.seqpar, "local", "down")

    def command(self, *args):
        return [str(BIN / "seqpar"), *map(str, args)]

    def seqpar(self, *args, timeout=180):
        return subprocess.run(self.command(*args), capture_output=True, text=True, timeout=scaled(timeout),
                              env=environment(), cwd=self.dir)

    def state(self):
        return json.loads(self.seqpar("-o", "json", "local", "status").stdout)

    def up(self, *more):
        done = self.seqpar("local", "up", "--slots", 2, "--port", 0, *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.state()

    def pids(self):
        found = []
        for file in (self.dir / ".seqpar").glob("*.pid"):
            try:
                found.append(int(file.read_text().split()[0]))
            except (FileNotFoundError, IndexError):
                pass
        return found

    def assert_gone(self, pids):
        wait_for(lambda: not any(alive(p) for p in pids), f"{pids} to end", 20)

    def test_up_a_job_and_down(self):
        first = self.up()
        pids = [first["coordinator"]["pid"], first["worker"]["pid"]]
        again = self.up()
        self.assertEqual([again["coordinator"]["pid"], again["worker"]["pid"]], pids, "up is idempotent")
        for name in ("coordinator", "worker"):
            with urllib.request.urlopen(f"http://{first[name]['metrics']}/readyz", timeout=scaled(20)) as ready:
                self.assertEqual(ready.status, 200)

        address = self.seqpar("local", "address").stdout.strip()
        self.assertEqual(address, first["address"])
        written = self.seqpar("example", "text", pathlib.Path(__file__), "--write", self.dir, "--hidden", 64)
        self.assertEqual(written.returncode, 0, written.stderr)
        job = self.seqpar("--server", address, "submit", "-f", written.stdout.strip(), "--wait", "--set",
                          "workers={min: 2, max: 2}", "--set", "config.num_attention_heads=2", "--set",
                          "config.num_key_value_heads=")
        self.assertEqual(job.returncode, 0, job.stdout + job.stderr)
        for word in ("verification  passed", "tokens/s", "of the measured peak", "predicted", "traffic"):
            self.assertIn(word, job.stdout)
        self.assertTrue((self.dir / "output.safetensors").exists())

        executors = [c for p in pids for c in children_of(p)]
        self.assertEqual(self.seqpar("local", "down").returncode, 0)
        self.assert_gone(pids + executors)
        self.assertEqual(self.seqpar("local", "down").returncode, 0, "down is idempotent")
        self.assertEqual(self.seqpar("local", "status").returncode, 5)

    def test_what_was_killed_is_started_again(self):
        first = self.up()
        os.kill(first["coordinator"]["pid"], signal.SIGKILL)
        wait_for(lambda: not alive(first["coordinator"]["pid"]), "the coordinator to end")
        self.assertEqual(self.seqpar("local", "status").returncode, 5)
        second = self.up()
        self.assertTrue(second["coordinator"]["running"])
        self.assert_gone([first["worker"]["pid"]])

    def test_interrupted_up_leaves_nothing(self):
        up = subprocess.Popen(self.command("local", "up", "--port", 0), cwd=self.dir, env=environment(),
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        pids = wait_for(self.pids, "the first pid file")
        up.send_signal(signal.SIGINT)
        _, err = up.communicate(timeout=scaled(60))
        self.assertIn(up.returncode, (0, 130), err)
        if up.returncode == 130:  # 0: it was up before the signal came
            self.assert_gone(pids)
            self.assertEqual(self.pids(), [])

    def test_an_ignored_interrupt_stays_ignored(self):
        """As in a script whose clean-up calls `local down` with interrupts turned off."""
        server = self.up()["address"]
        job = json.loads(subprocess.run(
            self.command("--server", server, "-o", "json", "submit", "-f", "-", "--set", "workers={min: 9}"),
            input=self.seqpar("example").stdout, capture_output=True, text=True, env=environment(), cwd=self.dir,
            timeout=scaled(60), check=True).stdout)["id"]
        watch = subprocess.Popen(["bash", "-c", "trap '' INT; exec \"$@\"", "bash",
                                  *self.command("--server", server, "watch", job)], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True, env=environment(), cwd=self.dir)
        self.addCleanup(watch.communicate)
        self.addCleanup(watch.kill)
        self.assertIn("PENDING", watch.stdout.readline())
        watch.send_signal(signal.SIGINT)
        self.assertEqual(self.seqpar("--server", server, "cancel", job).returncode, 0)
        self.assertEqual(watch.wait(scaled(60)), 7, "it was not interrupted, and saw the end of the job")

    def test_a_missing_data_folder_is_a_usage_error(self):
        done = self.seqpar("local", "up", "--port", 0, "--data", self.dir / "none")
        self.assertEqual(done.returncode, 2)
        self.assertIn("none", done.stderr)


if __name__ == "__main__":
    unittest.main()
