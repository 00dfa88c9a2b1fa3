"""The job store as its operator knows it: one coordinator at a time, backups, restores, a full disk."""
import json
import os
import pathlib
import signal
import subprocess
import unittest

from harness import BIN, ClusterTest, environment, scaled, wait_for
from held import Held

PAIR = {"workers": {"min": 2, "max": 2}}


def coordinator(*args):
    """(exit code, what it said) of a coordinator that is expected to end by itself."""
    done = subprocess.run([str(BIN / "seqpar-coordinator"), *map(str, args)], capture_output=True, text=True,
                          env=environment(), timeout=scaled(60))
    return done.returncode, done.stdout + done.stderr


class Store(ClusterTest):
    def test_a_second_coordinator_is_told_who_has_the_store(self):
        code, said = coordinator("--listen", "127.0.0.1:0", "--state-dir", self.dir / "state")
        self.assertEqual(code, 1)
        self.assertIn(f"pid {self.coordinator.pid} on ", said)
        self.wait_succeeded(self.submit(self.write_job()))

    def test_what_is_old_is_forgotten(self):
        self.coordinator.kill(signal.SIGTERM)
        self.start_coordinator("--keep-jobs", 2)
        self.wait_ready("node-a")
        jobs = [self.submit(self.write_job(workers={"min": 1, "max": 1})) for _ in range(4)]
        for job in jobs[2:]:
            self.wait_succeeded(job)
        wait_for(lambda: len(self.cli("list")["jobs"]) == 2, "two jobs to be left")
        self.assertEqual({j["id"] for j in self.cli("list")["jobs"]}, set(jobs[2:]))
        self.assertEqual(self.run_cli("get", jobs[0])[0], 4)


class Restore(Held):
    lease = "30s"

    def restart(self):
        self.coordinator.kill()
        self.start_coordinator()
        self.wait_ready("node-a")

    def test_a_restored_store_goes_above_all_that_workers_have_seen(self):
        self.hold_file("executor", "execute").touch()
        known = self.submit(self.job_file(**PAIR))
        self.wait_executors_held("execute", known, ranks=2)
        # A copy of this moment: one job, at its first attempt.
        backup = pathlib.Path(self.cli("backup", "moment.sqlite")["file"])
        self.assertEqual(backup, self.dir / "state/backups/moment.sqlite")
        # And then: two more terms, a second attempt, a second job.
        os.kill(self.executors(self.worker)[0], signal.SIGKILL)
        self.wait_executors_held("execute", known, attempt=2, ranks=2)
        self.restart()
        self.restart()
        unknown = self.submit(self.write_job("unknown.yaml", **PAIR))
        self.wait_executors_held("execute", unknown, ranks=2)
        self.coordinator.kill()

        (self.dir / "state").rename(self.dir / "lost")
        moved = self.dir / "lost/backups/moment.sqlite"
        code, said = coordinator("--state-dir", self.dir / "state", "--restore", moved)
        self.assertEqual(code, 0, said)
        self.start_coordinator()
        self.wait_ready("node-a")
        log = (self.dir / "coordinator.log").read_text()
        self.assertRegex(log, r"going above it .*\bseen=3\b.*\bterm=4\b")
        self.assertRegex(log, rf"a rank of no attempt that is known is stopped .*\bjob={unknown}\b")
        wait_for(lambda: len(self.executors(self.worker)) == 2, "the unknown gang to be gone")
        self.assertEqual(self.run_cli("get", unknown)[0], 4)
        # The first attempt is over, the second belongs to a past that is lost: the third.
        wait_for(lambda: self.get(known).get("attempt") == 3, "the next attempt")
        self.release("executor", "execute")
        done = self.succeeds(known, attempts=2)
        self.assertEqual([a["attempt"] for a in done["attempts"]], [1, 3])
        self.assertTrue(done["attempts"][0]["not_counted"])

    def test_a_store_that_is_there_is_not_replaced(self):
        backup = self.cli("backup")["file"]
        self.assertRegex(backup, r"/state/backups/jobs-\d{8}T\d{6}\.\d{3}Z\.sqlite$")
        for name in ("../outside", ".hidden", "a/b"):
            self.assertEqual(self.run_cli("backup", name)[0], 3)
        code, said = coordinator("--state-dir", self.dir / "state", "--restore", backup)
        self.assertEqual(code, 1)
        self.assertIn("another coordinator", said)
        self.coordinator.kill()
        code, said = coordinator("--state-dir", self.dir / "state", "--restore", backup)
        self.assertEqual(code, 1)
        self.assertIn("exists", said)
        self.start_coordinator()


class FullDisk(Held):
    lease = "20s"

    def start_coordinator(self, *more):
        state = self.dir / "state"
        if not state.is_mount():
            state.mkdir(exist_ok=True)
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(state)], capture_output=True)
            if done.returncode != 0:
                self.skipTest("a file system of a few megabytes needs the right to mount one")
            self.addCleanup(lambda: subprocess.run(["umount", "-l", str(state)], check=True))
        return super().start_coordinator(*more)

    def test_running_jobs_record_their_ends_and_new_ones_are_told_when_to_come_back(self):
        with self.held("executor", "execute"):
            job = self.held_job("executor", "execute")
            ballast = self.dir / "state/ballast"
            with open(ballast, "wb", buffering=0) as f:
                with self.assertRaises(OSError):
                    while True:
                        f.write(bytes(4096))
            refused = self.write_job("refused.yaml", labels={f"label-{i}": "y" * 60 for i in range(60)})

            def full():
                code, out, err = self.run_cli("submit", "-f", refused)
                return err if code != 0 else None
            # What is in the file of the log already may be overwritten there: not always at the first one.
            error = json.loads(wait_for(full, "the disk to be full"))
            self.assertEqual(error["code"], 8, error)
            self.assertRegex(json.dumps(error), r"RetryInfo.*retry_delay")
            self.release("executor", "execute")
            self.succeeds(job, attempts=1)
            ballast.unlink()
            wait_for(lambda: self.run_cli("submit", "-f", self.write_job())[0] == 0, "room for new jobs")


if __name__ == "__main__":
    unittest.main()
