"""Hold the service at each phase of a job's life and break it: nothing is lost, nothing is left, the job ends as told."""
import json
import os
import signal
import subprocess
import unittest

from harness import BIN, ClusterTest, alive, environment, wait_for

WORKER_PHASES = ("bootstrap", "shard", "execute", "merge")
COORDINATOR_PHASES = ("plan", "place", "report")


class Held(ClusterTest):
    """A cluster whose executors (or coordinator) stop at one phase until the hold file is removed."""
    autostart = False

    def start(self, worker_phase=None, coordinator_phase=None):
        self.hold = self.dir / "hold"
        self.hold.touch()
        more = ["--test-hold", f"{coordinator_phase}:{self.hold}"] if coordinator_phase else []
        self.start_coordinator(*more)
        self.worker = self.start_held_worker("node-a", worker_phase)
        self.wait_ready("node-a")

    def each(self, phases):
        """The phases, each with a cluster of its own, which ends with its turn also where the turn failed."""
        for phase in phases:
            print(f"... phase {phase}", flush=True)
            self.setUp()
            yield phase
            self.doCleanups()

    def start_held_worker(self, name, phase):
        more = ["--test-hold", f"{phase}:{self.hold}"] if phase else []
        return self.start_worker(name, *more)

    def held_job(self, phase, **changes):
        job = self.submit(self.write_job(output={"file": "out.safetensors"}, **changes))
        wait_for(lambda: self.get(job).get("phase") == f"JOB_PHASE_{phase.upper()}", f"phase {phase}")
        return job

    def assert_clean(self):
        wait_for(lambda: not self.executors(self.worker), "executors to be gone", 20)
        wait_for(lambda: not [p for p in self.data.iterdir() if ".partial" in p.name], "staging files to be gone", 20)


class KillExecutor(Held):
    def test_in_each_phase(self):
        for phase in self.each(WORKER_PHASES):
            self.start(worker_phase=phase)
            job = self.held_job(phase)
            executors = wait_for(lambda: len(self.executors(self.worker)) == 4 and self.executors(self.worker),
                                 "four executors")
            os.kill(executors[2], signal.SIGKILL)
            wait_for(lambda: self.get(job).get("attempts", [{}])[0].get("error"), "the first attempt to fail")
            self.hold.unlink()
            done = self.wait_succeeded(job)
            self.assertEqual(len(done["attempts"]), 2)
            first = done["attempts"][0]["error"]
            self.assertIn("rank", first["message"])
            self.assertIn(phase, first["message"])
            self.assertTrue((self.data / "out.safetensors").exists())
            self.assertTrue(alive(self.worker.pid))
            self.assert_clean()

    def test_attempts_are_bounded(self):
        self.start(worker_phase="execute")
        job = self.held_job("execute", max_attempts=2)
        for attempt in (1, 2):
            def ready():
                state = self.get(job)
                return state.get("attempt") == attempt and state.get("phase") == "JOB_PHASE_EXECUTE" and \
                    self.executors(self.worker)
            executors = wait_for(ready, f"attempt {attempt}")
            os.kill(executors[0], signal.SIGKILL)
        done = self.wait_ended(job)
        self.assertEqual(done["state"], "JOB_STATE_FAILED")
        self.assertEqual(len(done["attempts"]), 2)
        self.assertEqual(self.run_cli("watch", job)[0], 1)
        self.assertFalse((self.data / "out.safetensors").exists())
        self.assert_clean()


class Cancel(Held):
    def test_in_each_phase(self):
        for phase in self.each(WORKER_PHASES):
            self.start(worker_phase=phase)
            job = self.held_job(phase)
            self.cli("cancel", job)
            done = self.wait_ended(job, 10)
            self.assertEqual(done["state"], "JOB_STATE_CANCELLED")
            self.assertEqual(self.run_cli("watch", job)[0], 7)
            self.assert_clean()
            self.assertFalse((self.data / "out.safetensors").exists())

    def test_while_it_waits_for_devices(self):
        self.start()
        job = self.submit(self.write_job(workers={"min": 9, "max": 9}))
        self.cli("cancel", job)
        self.assertEqual(self.wait_ended(job, 10)["state"], "JOB_STATE_CANCELLED")


class KillWorker(Held):
    def test_in_each_phase_the_job_waits_for_a_node(self):
        for phase in self.each(WORKER_PHASES):
            self.start(worker_phase=phase)
            job = self.held_job(phase)
            executors = self.executors(self.worker)
            self.worker.kill()
            wait_for(lambda: not any(alive(e) for e in executors), "executors to end with their daemon", 15)
            state = wait_for(lambda: self.get(job)["state"] == "JOB_STATE_PENDING" and self.get(job),
                             "the job to wait", 30)
            self.assertTrue(state.get("reason"), state)
            self.hold.unlink()
            self.worker = self.start_held_worker("node-a", None)
            self.wait_succeeded(job)


class KillCoordinator(Held):
    def test_back_within_the_lease_the_same_attempt_goes_on(self):
        for phase in self.each(WORKER_PHASES):
            self.lease = "20s"
            self.start(worker_phase=phase)
            job = self.held_job(phase)
            wait_for(lambda: len(self.executors(self.worker)) == 4, "four executors")
            executors = sorted(self.executors(self.worker))
            self.coordinator.kill()
            self.start_coordinator()
            self.assertEqual(sorted(self.executors(self.worker)), executors)
            self.hold.unlink()
            done = self.wait_succeeded(job)
            self.assertEqual(len(done["attempts"]), 1)

    def test_back_after_the_lease_the_next_attempt_runs(self):
        self.lease = "3s"
        self.start(worker_phase="execute")
        job = self.held_job("execute")
        self.coordinator.kill()
        wait_for(lambda: not self.executors(self.worker), "the lease to end the executors", 15)
        self.hold.unlink()
        self.start_coordinator()
        done = self.wait_succeeded(job)
        self.assertEqual(len(done["attempts"]), 2)

    def test_killed_in_its_own_phases(self):
        for phase in self.each(COORDINATOR_PHASES):
            self.start(coordinator_phase=phase)
            job = self.submit(self.write_job(output={"file": "out.safetensors"}))
            wait_for(lambda: "test-hold" in (self.dir / "coordinator.log").read_text(), "the hold")
            self.coordinator.kill()
            self.hold.unlink()
            self.start_coordinator()
            self.wait_succeeded(job)
            self.assertTrue((self.data / "out.safetensors").exists())
            self.assert_clean()

    def test_killed_before_the_submit_is_stored(self):
        self.start(coordinator_phase="submit")
        path = self.write_job()
        submit = subprocess.Popen([str(BIN / "seqpar"), "--server", self.server, "--timeout", "5", "submit", "-f",
                                   str(path), "--request-id", "once"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=environment())
        wait_for(lambda: "test-hold" in (self.dir / "coordinator.log").read_text(), "the hold")
        self.coordinator.kill()
        _, err = submit.communicate(timeout=30)
        self.assertEqual(submit.returncode, 5, err)
        self.hold.unlink()
        self.start_coordinator()
        self.wait_ready("node-a")
        self.assertEqual(self.cli("list").get("jobs", []), [])
        job = self.submit(path, "--request-id", "once")
        self.wait_succeeded(job)
        self.assertEqual(self.submit(path, "--request-id", "once"), job)


if __name__ == "__main__":
    unittest.main()
