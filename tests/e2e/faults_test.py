"""Executors killed, and jobs cancelled, at each phase of a job's life (held.py has the table)."""
import os
import signal
import time
import unittest

from harness import alive, scaled, wait_for
from held import AFTER_THE_RANKS, BEFORE_THE_JOB, EXECUTOR_PHASES, OUTPUT, QUEUED, Held


class KillExecutor(Held):
    lease = "20s"  # a busy machine is no lost node

    def kill_one(self, job):
        executors = wait_for(lambda: len(self.executors(self.worker)) == 4 and self.executors(self.worker),
                             "four executors")
        os.kill(executors[2], signal.SIGKILL)
        wait_for(lambda: (self.get(job).get("attempts") or [{}])[0].get("error"), "the first attempt to fail")

    def check(self, process, phase):
        job = self.held_job(process, phase)
        self.kill_one(job)
        self.release(process, phase)
        done = self.succeeds(job, attempts=2)
        error = done["attempts"][0]["error"]
        # The first cause is the rank that was killed, not those that only saw it go.
        self.assertRegex(error["message"], rf"rank \d on node-a/\d failed in phase {phase}: .*signal 9")
        self.assertEqual(error["details"][0]["reason"], "RANK_FAILED")
        for consequence in done["attempts"][0].get("consequences", []):
            self.assertNotIn("signal 9", consequence)
        self.assertTrue(alive(self.worker.pid))

    def test_in_each_phase_of_the_executors(self):
        for phase in EXECUTOR_PHASES:
            with self.held("executor", phase):
                self.check("executor", phase)

    def test_while_the_coordinator_holds_the_bootstrap(self):
        for phase in ["bootstrap"]:
            with self.held("coordinator", phase):
                self.check("coordinator", phase)

    def test_there_are_none_in_the_coordinators_other_phases(self):
        for phase in QUEUED + AFTER_THE_RANKS:
            with self.held("coordinator", phase):
                job = self.held_job("coordinator", phase)
                wait_for(lambda: not self.executors(self.worker), "executors to be gone")
                self.release("coordinator", phase)
                self.succeeds(job, attempts=1)

    def test_attempts_are_bounded(self):
        self.hold_file("executor", "execute").touch()
        job = self.submit(self.job_file(max_attempts=2))
        for attempt in (1, 2):
            self.wait_executors_held("execute", job, attempt)
            os.kill(self.executors(self.worker)[0], signal.SIGKILL)
        done = self.wait_ended(job)
        self.assertEqual(done["state"], "JOB_STATE_FAILED")
        self.assertEqual(len(done["attempts"]), 2)
        self.assertEqual(self.run_cli("watch", job)[0], 1)
        self.assertFalse((self.data / OUTPUT).exists())

    def test_in_the_middle_of_a_collective_only_its_attempt_is_harmed(self):
        long = {"config": {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
                           "intermediate_size": 64, "num_hidden_layers": 400, "rope_theta": 10000.0},
                "input": {"seed": 2, "tokens": 1000}, "workers": {"min": 2, "max": 2},
                "parallelism": {"strategy": "ring", "ring": 2}}

        def held(name):
            before = set(self.executors(self.worker))
            job = self.submit(self.write_job(f"{name}.yaml", **long))
            self.wait_executors_held("execute", job, ranks=2)
            return job, set(self.executors(self.worker)) - before
        self.hold_file("executor", "execute").touch()
        harmed, victims = held("harmed")
        bystander, others = held("bystander")
        self.assertEqual((len(victims), len(others)), (2, 2))
        self.release("executor", "execute")
        state = wait_for(lambda: (self.get(harmed).get("progress") or {}).get("percent", 0) > 0 and self.get(harmed),
                         "layers to be done")
        self.assertEqual(state["state"], "JOB_STATE_RUNNING", "too short a job for this machine")
        os.kill(victims.pop(), signal.SIGKILL)
        self.assertEqual(len(self.wait_succeeded(harmed, 180)["attempts"]), 2)
        self.assertEqual(len(self.wait_succeeded(bystander, 180)["attempts"]), 1)


class StandStill(Held):
    """Nobody dies, and nothing moves: the deadlines find out, and name who keeps the others waiting."""
    lease = "20s"
    step_timeout = "5s"
    coordinator_flags = ("--bootstrap-timeout", "5s", "--no-progress-timeout", "5s")

    def check(self, phase, reason, message):
        job = self.held_job("executor", phase)
        wait_for(lambda: self.get(job)["attempts"][0].get("error"), "the first attempt to fail")
        self.release("executor", phase)
        error = self.wait_succeeded(job)["attempts"][0]["error"]
        self.assertEqual(error["details"][0]["reason"], reason)
        self.assertRegex(error["message"], message)

    def test_a_bootstrap_names_the_ranks_that_are_missing(self):
        with self.held("executor", "bootstrap"):
            self.check("bootstrap", "BOOTSTRAP_TIMEOUT",
                       r"4 of 4 ranks did not arrive in phase bootstrap within 5 s: rank 0 on node-a/\d, rank 1 on")

    def test_an_attempt_without_progress_names_a_rank_and_its_phase(self):
        with self.held("executor", "execute"):
            self.check("execute", "NO_PROGRESS", r"no progress for 5 s: rank \d on node-a/\d: phase execute, layer 0")


class Cancel(Held):
    lease = "20s"

    def cancel(self, job):
        begin = time.monotonic()
        self.cli("cancel", job)
        done = self.wait_ended(job, 20)
        print(f"    cancelled in {time.monotonic() - begin:.2f} s", flush=True)
        return done

    def check_cancelled(self, job):
        self.assertEqual(self.cancel(job)["state"], "JOB_STATE_CANCELLED")
        self.assertEqual(self.run_cli("watch", job)[0], 7)
        # Not only once it is released: nothing waits for what is held.
        wait_for(lambda: not self.executors(self.worker), "executors to be gone")
        self.assertFalse((self.data / OUTPUT).exists())

    def test_in_each_phase_of_the_executors(self):
        for phase in EXECUTOR_PHASES:
            with self.held("executor", phase):
                job = self.held_job("executor", phase)
                self.check_cancelled(job)
                wait_for(lambda: not self.staged(), "the staging file to be gone")

    def test_in_each_phase_of_the_coordinator(self):
        for phase in QUEUED + ("bootstrap", "merge"):
            with self.held("coordinator", phase):
                self.check_cancelled(self.held_job("coordinator", phase))

    def test_it_is_too_late_once_the_output_has_its_name(self):
        for phase in ["report"]:
            with self.held("coordinator", phase):
                job = self.held_job("coordinator", phase)
                self.assertTrue((self.data / OUTPUT).exists())
                self.assertEqual(self.cli("cancel", job)["state"], "JOB_STATE_RUNNING")
                self.release("coordinator", phase)
                self.succeeds(job, attempts=1)

    def test_a_client_that_gives_up_before_it_has_an_id_can_ask_for_it_again(self):
        for phase in BEFORE_THE_JOB:
            with self.held("coordinator", phase):
                client, path, name, request = self.held_submit(phase)
                client.send_signal(signal.SIGINT)
                client.communicate(timeout=scaled(30))
                self.assertEqual(client.returncode, 130)
                self.release("coordinator", phase)
                job = self.submit(path, "--request-id", request)
                self.assertEqual([j["id"] for j in self.cli("list")["jobs"] if j["name"] == name], [job])

    def test_while_it_waits_for_devices(self):
        job = self.submit(self.write_job(workers={"min": 9, "max": 9}))
        self.assertEqual(self.cancel(job)["state"], "JOB_STATE_CANCELLED")


if __name__ == "__main__":
    unittest.main()
