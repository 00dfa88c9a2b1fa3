"""`seqpar plan --cluster` where no coordinator runs: it answers all the same and leaves nothing behind."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import BIN, alive, children_of, environment, scaled, wait_for

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
NOWHERE = "127.0.0.1:1"


def program_of(pid):
    """The name of the file that a process runs; empty where it is gone."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


class PlanWithoutACoordinator(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-plan-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        (self.dir / "tmp").mkdir()

    def command(self, *args):
        return [str(BIN / "seqpar"), "--server", NOWHERE, "plan", *map(str, args)]

    def start(self, *args, **more):
        return subprocess.Popen(self.command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                cwd=self.dir, env={**environment(), "TMPDIR": str(self.dir / "tmp")}, **more)

    def plan(self, *args):
        done = self.start(*args)
        out, err = done.communicate(timeout=scaled(120))
        self.assertEqual(list((self.dir / "tmp").iterdir()), [], "the temporary folder is gone")
        return done.returncode, out, err

    def test_answers_for_each_shipped_cluster(self):
        for name, job, ranks, seeded in (
                ("4-cpu-slots", "quickstart", 4, ["--set", "input={seed: 2, tokens: 35149}"]),
                ("8xh100", "llama-8b-1m", 8, []),
                ("8xh100", "llama-8b-1m", None, ["--set", "input.tokens=2097152"]),
                ("16x8-h200", "llama-8b-1m", 128, [])):
            with self.subTest(cluster=name, ranks=ranks):
                code, out, err = self.plan("-f", EXAMPLES / f"job-{job}.yaml", "--cluster",
                                           EXAMPLES / f"cluster-{name}.yaml", "-o", "json", *seeded)
                if ranks is None:  # two million tokens of this model need more than one node
                    self.assertEqual(code, 5, err)
                    self.assertIn("TOO_FEW_DEVICES", err)
                    self.assertIn("16", err)
                    continue
                self.assertEqual(code, 0, err)
                self.assertEqual(err, "")
                answer = json.loads(out)
                self.assertEqual(len(answer["plan"]["ranks"]), ranks)
                x = answer["explanation"]
                self.assertEqual(len(x["all"]), min(5000, int(x["considered"])))

    def test_relative_and_absolute_files_of_the_job(self):
        written = subprocess.run([str(BIN / "seqpar"), "example", "--write", "demo"], cwd=self.dir,
                                 env=environment(), capture_output=True, text=True, timeout=scaled(60))
        self.assertEqual(written.returncode, 0, written.stderr)
        cluster = EXAMPLES / "cluster-4-cpu-slots.yaml"
        code, _, err = self.plan("-f", "demo/job.yaml", "--cluster", cluster)
        self.assertEqual(code, 0, err)
        code, _, err = self.plan("-f", "demo/job.yaml", "--cluster", cluster, "--set",
                                 "weights={file: demo/weights.safetensors}", "--set",
                                 "input={file: demo/none.safetensors}")
        self.assertEqual(code, 3, err)
        self.assertIn("input.file", err)
        self.assertNotIn("weights.file", err)

    def test_without_a_cluster_it_says_that_nothing_answers(self):
        code, _, err = self.plan("-f", EXAMPLES / "job-ring.yaml")
        self.assertEqual(code, 5, err)
        self.assertIn("seqpar local up", err)

    def stopped_in_the_middle(self):
        """A plan whose coordinator stands still, so that the command waits for it; and that coordinator's pid."""
        command = self.start("-f", EXAMPLES / "job-llama-8b-1m.yaml", "--cluster",
                             EXAMPLES / "cluster-16x8-h200.yaml", "-o", "json")
        self.addCleanup(command.communicate)
        self.addCleanup(command.kill)

        def coordinator():
            """Not a child that is still on its way to being one."""
            return [c for c in children_of(command.pid) if program_of(c) == "seqpar-coordinator"]
        found = wait_for(lambda: coordinator() or command.poll() is not None, "the coordinator")
        self.assertIsNone(command.poll(), "it was done before it could be stopped")
        os.kill(found[0], signal.SIGSTOP)
        return command, found[0]

    def test_interrupted_it_leaves_nothing(self):
        command, coordinator = self.stopped_in_the_middle()
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=scaled(60))
        self.assertEqual(command.returncode, 130, err)
        self.assertFalse(alive(coordinator))
        self.assertEqual(list((self.dir / "tmp").iterdir()), [])

    def test_killed_it_leaves_no_process(self):
        command, coordinator = self.stopped_in_the_middle()
        command.kill()
        command.communicate(timeout=scaled(60))
        wait_for(lambda: not alive(coordinator), "the coordinator to end with its command", 20)


if __name__ == "__main__":
    unittest.main()
