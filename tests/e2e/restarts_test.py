"""The worker killed, and the coordinator killed, at each phase of a job's life (held.py has the table)."""
import unittest

from harness import Process, alive, scaled, wait_for
from held import AFTER_THE_RANKS, BEFORE_THE_JOB, EXECUTOR_PHASES, OUTPUT, QUEUED, Held


class KillWorker(Held):
    lease = "4s"

    def kill_worker(self):
        executors = self.executors(self.worker)
        self.worker.kill()
        wait_for(lambda: not any(alive(e) for e in executors), "executors to end with their daemon")
        self.wait_node("node-a", "LOST")

    def wait_lease_over(self):
        wait_for(lambda: not self.cli("nodes")["nodes"][0].get("lease_left"), "the lease of node-a to be over")

    def wait_for_a_node(self, job):
        wait_for(lambda: "waits for a node" in self.get(job).get("reason", ""), "the job to wait for a node")
        self.assertEqual(self.get(job)["state"], "JOB_STATE_PENDING")

    def again(self):
        self.worker = self.start_worker("node-a")
        self.wait_ready("node-a")

    def test_in_each_phase_of_the_executors_the_job_waits_for_a_node(self):
        for phase in EXECUTOR_PHASES:
            with self.held("executor", phase):
                job = self.held_job("executor", phase)
                self.kill_worker()
                self.wait_for_a_node(job)
                self.release("executor", phase)
                self.again()
                done = self.succeeds(job, attempts=2)
                error = done["attempts"][0]["error"]
                self.assertRegex(error["message"], f"was lost in {self.told(phase)}: the lease of its node is over")
                self.assertEqual(error["details"][0]["reason"], "RANK_LOST")

    def test_while_the_coordinator_holds_the_bootstrap(self):
        for phase in ["bootstrap"]:
            with self.held("coordinator", phase):
                job = self.held_job("coordinator", phase)
                self.kill_worker()
                self.wait_for_a_node(job)
                self.release("coordinator", phase)
                self.again()
                self.succeeds(job, attempts=2)

    def test_before_an_attempt_none_is_lost(self):
        for phase in QUEUED:
            with self.held("coordinator", phase):
                job = self.held_job("coordinator", phase)
                self.kill_worker()
                self.wait_lease_over()
                self.release("coordinator", phase)
                wait_for(lambda: self.get(job).get("reason"), "the job to say why it waits")
                self.again()
                self.succeeds(job, attempts=1)

    def test_after_the_ranks_nobody_misses_it(self):
        for phase in AFTER_THE_RANKS:
            with self.held("coordinator", phase):
                job = self.held_job("coordinator", phase)
                self.kill_worker()
                self.release("coordinator", phase)
                self.succeeds(job, attempts=1)
                self.again()

    def test_a_submit_needs_none(self):
        for phase in BEFORE_THE_JOB:
            with self.held("coordinator", phase):
                client, path, _, request = self.held_submit(phase)
                self.kill_worker()
                self.release("coordinator", phase)
                out, err = client.communicate(timeout=scaled(60))
                self.assertEqual(client.returncode, 0, err)
                job = out.strip()
                self.wait_for_a_node(job)
                self.assertEqual(self.submit(path, "--request-id", request), job)
                self.again()
                self.succeeds(job, attempts=1)

    def test_a_second_worker_of_its_name_is_told_of_the_first(self):
        with self.held("executor", "execute"):
            job = self.held_job("executor", "execute")
            second = Process(self.worker_command("node-a"), self.dir / "second.log")
            self.processes.append(second)
            self.assertEqual(second.popen.wait(scaled(60)), 1)
            self.assertIn(f"another worker runs as node-a here: pid {self.worker.pid} on ", second.log.read_text())
            self.release("executor", "execute")
            self.succeeds(job, attempts=1)

    def test_the_gang_goes_on_with_what_is_left(self):
        other = self.start_worker("node-b")
        self.wait_ready("node-b")
        self.hold_file("executor", "execute").touch()
        job = self.submit(self.job_file(workers={"min": 4, "max": 8}, parallelism={"strategy": "ring"}))
        ranks = len(wait_for(lambda: self.get(job).get("attempts"), "an attempt")[0]["devices"])
        self.wait_executors_held("execute", job, ranks=ranks)
        used = {d.split("/")[0] for d in self.get(job)["attempts"][0]["devices"]}
        lost, left = ("node-b", self.worker) if "node-b" in used else ("node-a", other)
        (other if lost == "node-b" else self.worker).kill()
        wait_for(lambda: len(self.get(job)["attempts"]) == 2 and self.executors(left), "the second attempt")
        self.hold_file("executor", "execute").unlink()
        done = self.succeeds(job, attempts=2)
        self.assertEqual({d.split("/")[0] for d in done["attempts"][1]["devices"]}, {"node-a", "node-b"} - {lost})


class KillCoordinator(Held):
    """It comes back within the lease: the same attempt goes on, and its executors never notice."""
    lease = "30s"

    def test_in_each_phase_of_the_executors_the_attempt_goes_on(self):
        for phase in EXECUTOR_PHASES:
            with self.held("executor", phase):
                job = self.held_job("executor", phase)
                executors = sorted(self.executors(self.worker))
                self.assertEqual(len(executors), 4)
                self.coordinator.kill()
                self.start_coordinator()
                self.wait_ready("node-a")
                self.assertEqual(sorted(self.executors(self.worker)), executors)
                self.release("executor", phase)
                self.succeeds(job, attempts=1)

    def test_in_each_phase_of_its_own_the_job_goes_on(self):
        for phase in QUEUED + ("bootstrap",) + AFTER_THE_RANKS:
            with self.held("coordinator", phase):
                job = self.held_job("coordinator", phase)
                self.coordinator.kill()
                self.release("coordinator", phase)
                self.start_coordinator()
                self.succeeds(job, attempts=1)

    def test_before_the_submit_is_stored_the_client_is_told_and_may_repeat_it(self):
        for phase in BEFORE_THE_JOB:
            with self.held("coordinator", phase):
                before = [j["id"] for j in self.cli("list").get("jobs", [])]
                client, path, _, request = self.held_submit(phase)
                self.coordinator.kill()
                _, err = client.communicate(timeout=scaled(60))
                self.assertEqual(client.returncode, 5, err)
                self.assertIn(request, err)
                self.release("coordinator", phase)
                self.start_coordinator()
                self.wait_ready("node-a")
                self.assertEqual([j["id"] for j in self.cli("list").get("jobs", [])], before)
                job = self.submit(path, "--request-id", request)
                self.succeeds(job, attempts=1)
                self.assertEqual(self.submit(path, "--request-id", request), job)


class CoordinatorBackTooLate(Held):
    """The workers' leases end meanwhile: the next attempt."""
    lease = "4s"

    def check(self, process, phase):
        job = self.held_job(process, phase)
        self.assertEqual(len(self.executors(self.worker)), 4)
        self.coordinator.kill()
        wait_for(lambda: not self.executors(self.worker), "the lease to end the executors")
        self.release(process, phase)
        self.start_coordinator()
        done = self.succeeds(job, attempts=2)
        self.assertRegex(done["attempts"][0]["error"]["message"], self.told(phase))

    def test_in_each_phase_of_the_executors(self):
        for phase in EXECUTOR_PHASES:
            with self.held("executor", phase):
                self.check("executor", phase)

    def test_while_it_held_the_bootstrap(self):
        for phase in ["bootstrap"]:
            with self.held("coordinator", phase):
                self.check("coordinator", phase)


if __name__ == "__main__":
    unittest.main()
