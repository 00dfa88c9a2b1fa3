"""A cluster that stops at a phase of a job's life, to be broken just there.

The tests that use it are one table: in each of the nine phases, each of four faults (an executor killed, the worker
killed, the coordinator killed, a cancel) wherever what is to be broken exists then. Coordinator and executors both can
be held: submit, validate, plan and place happen in the coordinator alone, shard and execute in the executors alone, the
rest in both.
"""
import contextlib
import re
import time

from harness import ClusterTest, wait_for

COORDINATOR_PHASES = ("submit", "validate", "plan", "place", "bootstrap", "merge", "report")
EXECUTOR_PHASES = ("bootstrap", "shard", "execute", "merge", "report")
BEFORE_THE_JOB = ("submit", "validate")  # it has no id yet
QUEUED = ("plan", "place")  # no attempt has begun
AFTER_THE_RANKS = ("merge", "report")  # in the coordinator: every rank has finished and is gone
OUTPUT = "out.safetensors"


class Held(ClusterTest):
    """Coordinator and executors wait at a phase while its hold file exists; one cluster serves all phases of a test."""
    autostart = False
    coordinator_flags = ()

    def setUp(self):
        super().setUp()
        self.start_coordinator()
        self.worker = self.start_worker("node-a")
        self.wait_ready("node-a")

    def holds(self, process, phases):
        return [word for phase in phases for word in ("--test-hold", f"{phase}:{self.hold_file(process, phase)}")]

    def hold_file(self, process, phase):
        return self.dir / f"hold-{process}-{phase}"

    def start_coordinator(self, *more):
        return super().start_coordinator(*self.holds("coordinator", COORDINATOR_PHASES),
                                         *self.coordinator_flags, *more)

    def start_worker(self, name, *more, **options):
        return super().start_worker(name, *self.holds("executor", EXECUTOR_PHASES), *more, **options)

    @contextlib.contextmanager
    def held(self, process, phase):
        """Holds `process` at `phase`; asserts afterwards that nothing is left. A phase that fails does not keep the
        next one from being tried."""
        failed = True
        with self.subTest(held=process, phase=phase):
            begin = time.monotonic()
            self.hold_file(process, phase).touch()
            yield
            self.settle()
            failed = False
            print(f"... {process} held at {phase}: {time.monotonic() - begin:.1f} s", flush=True)
        if failed:
            self.recover()
        (self.data / OUTPUT).unlink(missing_ok=True)

    def recover(self):
        for hold in self.dir.glob("hold*"):
            hold.unlink()
        if self.coordinator.popen.poll() is not None:
            self.start_coordinator()
        if self.worker.popen.poll() is not None:
            self.worker = self.start_worker("node-a")
        self.wait_ready("node-a")
        self.settle()

    def release(self, process, phase):
        self.hold_file(process, phase).unlink()

    # --- jobs that come to the hold ---

    def job_file(self, **changes):
        return self.write_job(output={"file": OUTPUT, "overwrite": True}, **changes)

    def wait_coordinator_held(self, phase, name):
        line = f"test-hold phase={phase} job={name}"
        wait_for(lambda: line in (self.dir / "coordinator.log").read_text(), line)

    def wait_executors_held(self, phase, job, attempt=1, ranks=4):
        def held():
            logs = (self.cli("logs", job, "--attempt", attempt, check=False) or {}).get("logs", [])
            begun = re.compile(rf"phase begins .*\bphase={phase}\b")
            return sum(begun.search(log.get("text", "")) is not None for log in logs) == ranks
        wait_for(held, f"{ranks} executors at {phase}")

    def held_job(self, process, phase, **changes):
        """A job that has come to `phase`, held there by `process`."""
        job = self.submit(self.job_file(**changes))
        if process == "coordinator":
            self.wait_coordinator_held(phase, job)
        else:
            self.wait_executors_held(phase, job)
            # And the coordinator has heard so: by heartbeat. To a user, merge lasts until every rank has reported.
            seen = "MERGE" if phase == "report" else phase.upper()
            wait_for(lambda: self.get(job).get("phase") == f"JOB_PHASE_{seen}", f"phase {seen}")
        return job

    def told(self, phase):
        """What errors call `phase`, as a pattern: a rank at its report may last have been heard in its merge."""
        return "phase (merge|report)" if phase == "report" else f"phase {phase}"

    def held_submit(self, phase):
        """A client whose submit has come to `phase`: (the client, the job's file, its name, the request id)."""
        name = f"at-{phase}-{time.monotonic_ns()}"
        path = self.job_file(name=name)
        client = self.start_cli("submit", "-f", path, "--request-id", f"once-{name}")
        self.wait_coordinator_held(phase, name)
        return client, path, name, f"once-{name}"

    def succeeds(self, job, attempts):
        done = self.wait_succeeded(job)
        self.assertEqual(len(done.get("attempts", [])), attempts, done.get("attempts"))
        self.assertTrue((self.data / OUTPUT).exists())
        return done
