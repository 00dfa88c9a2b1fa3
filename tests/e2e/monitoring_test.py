"""Dashboards and alerts with everything real but GPUs: coordinator, workers and jobs, scraped by Prometheus each second.

Every panel's query returns data with every value of every variable; two jobs that run in turn on the same devices do not
mix; a healthy run fires no alert, and each fault fires its own. Alerts wait for a part only of what they wait in truth.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "deploy"))
import monitoring  # noqa: E402

monitoring.need(programs=["prometheus"])

from certificates import Authority, Tokens  # noqa: E402
from fake_gpus import GIB, FakeGpus  # noqa: E402
from grafana import ALL, Board  # noqa: E402
from harness import BIN, ClusterTest, Process, alive, log_tail, scaled, wait_for  # noqa: E402
from prometheus import DcgmExporter, Prometheus, finite  # noqa: E402

NODES = ("node-a", "node-b")
BY_SMALL = {"SeqparDiskFilling", "SeqparCertificateExpiring"}  # alerts that need a worker with a small disk
SLOTS = 2
# A model that keeps one slow core busy for some scrapes.
LARGE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64,
         "intermediate_size": 512, "num_hidden_layers": 30, "rope_theta": 10000.0}


class Monitored(ClusterTest):
    """Two nodes of two slots, a stand-in for dcgm-exporter, and Prometheus."""
    metrics = True
    slots = SLOTS
    autostart = False
    lease = "20s"
    hurry = 20  # an alert that waits for 5 minutes waits for 15 s: a machine that is busy for a moment is well

    def setUp(self):
        super().setUp()
        self.start_coordinator()
        self.workers = {name: self.start_worker(name, *self.holds()) for name in NODES}
        self.wait_ready(*NODES)
        self.dcgm = DcgmExporter([f"GPU-{node}-{device}" for node in NODES for device in range(SLOTS)])
        self.addCleanup(self.dcgm.stop)
        self.prometheus = Prometheus(self.dir, {
            "coordinator": [self.metrics_address("coordinator")],
            "worker": [self.metrics_address(name) for name in NODES], "dcgm": [self.dcgm.address],
            **self.start_others()}, self.start, self.hurry)
        wait_for(lambda: self.prometheus.up() and all(self.prometheus.up().values()), "every target to be up", 30)
        self.begin = time.time()

    def holds(self):
        return "--test-hold", f"execute:{self.dir / 'hold-execute'}"

    def start(self, arguments, log):
        process = Process(arguments, log)
        self.processes.append(process)
        return process

    def start_others(self):
        """Starts what else Prometheus is to scrape: {scrape job: [address]}."""
        return {}

    def metrics_address(self, name):
        return (self.dir / f"{name}.metrics").read_text().strip()

    def scraped_after(self, moment):
        """Waits until every target has been scraped, and the rules were looked at, after `moment`."""
        wait_for(lambda: (self.prometheus.number("min(timestamp(up))") or 0) > moment + 1, "a scrape", 20)


class Dashboards(Monitored):
    """Over TLS, as a cluster is: certificates have a panel too."""
    # Long enough for some scrapes each, on one slow core too.
    JOBS = {"ring": {"parallelism": {"strategy": "ring", "ring": 4}, "input": {"seed": 2, "tokens": 3501}},
            "ulysses": {"parallelism": {"strategy": "ulysses", "ulysses": 4}, "input": {"seed": 2, "tokens": 2501}}}

    def holds(self):
        return ()

    def start_coordinator(self, *more):
        folder = self.dir / "certificates"
        folder.mkdir()
        self.authority, tokens = Authority(folder), Tokens(folder)
        self.user = ("--tls-ca", self.authority.cert, "--token-file", tokens.add("ops", role="operator", tenant="ops"))
        certificate, key = self.authority.issue("coordinator", "DNS:localhost,IP:127.0.0.1")
        return super().start_coordinator("--tls-cert", certificate, "--tls-key", key, "--tls-client-ca",
                                         self.authority.cert, "--tokens", tokens.file, *more)

    def start_worker(self, name, *more, **kinds):
        certificate, key = self.authority.issue(name, f"URI:seqpar://node/{name}")
        return super().start_worker(name, "--tls-ca", self.authority.cert, "--tls-cert", certificate, "--tls-key", key,
                                    *more, **kinds)

    def run_cli(self, *args, timeout=120):
        return super().run_cli(*self.user, *args, timeout=timeout)

    def job(self, strategy):
        """A job on all four slots, until it has ended: (id, when it began, when it had ended)."""
        begin = time.time()
        job = self.submit(self.write_job(config=LARGE, **{"pass": "forward_backward"}, verify={"rows": 2},
                                         grad_output={"seed": 3}, workers={"min": 4, "max": 4}, **self.JOBS[strategy]))
        # Meanwhile a user looks at things: so that every method is called.
        self.cli("nodes")
        self.cli("list")
        self.cli("plan", "-f", self.data / "job.yaml")
        self.run_cli("watch", job)
        self.cli("logs", job)
        self.cli("get", job)
        state = self.wait_succeeded(job)
        self.assertEqual(state["report"]["strategy"], strategy)
        return job, begin, time.time()

    def test_dashboards_of_a_healthy_run(self):
        jobs = {strategy: self.job(strategy) for strategy in self.JOBS}
        for job, begin, end in jobs.values():
            print(f"... job {job}: {end - begin:.1f} s")
        cancelled = self.submit(self.write_job(workers={"min": 99, "max": 99}))
        self.cli("cancel", cancelled)
        self.cli("drain", "node-a")
        self.cli("drain", "node-a", "--undo")
        self.scraped_after(time.time())
        end = time.time()
        with self.subTest("no alert fires"):
            fired = {labels["alertname"] for labels, _ in self.prometheus.range('ALERTS{alertstate="firing"}', self.begin, end)}
            disk = shutil.disk_usage(self.dir)
            if disk.free < 0.4 * disk.total:  # then it also tells of what others write to this machine's disk
                fired.discard("SeqparDiskFilling")
            self.assertEqual(fired, set())
        boards = {name: Board(name, self.prometheus, self.begin, end)
                  for name in ("fleet", "job", "communication", "coordinator")}
        begun = time.monotonic()
        queries = sum(self.check_data(board) for board in boards.values())
        print(f"... {queries} queries: {time.monotonic() - begun:.1f} s")
        self.check_apart(boards["job"], jobs)

    # --- every query returns data ---

    def check_data(self, board):
        seen = {}
        for chosen in board.choices():
            for panel in board.panels:
                for target in panel["targets"]:
                    expr = board.interpolate(target["expr"], chosen)
                    if expr in seen:
                        continue
                    _, series = board.run(target, chosen)
                    seen[expr] = finite(series) or (series != [] and self.nothing_observed(board, target, chosen))
                    if not seen[expr]:
                        with self.subTest(dashboard=board.name, panel=panel["title"], chosen=chosen):
                            self.fail(f"no data: {expr}")
        self.assertGreater(len(seen), len(board.panels))
        return len(seen)

    def nothing_observed(self, board, target, chosen):
        """Whether a quantile is none because nothing was measured of what was chosen, and something was of the rest."""
        if not target["expr"].startswith("histogram_quantile") or all(value == ALL for value in chosen.values()):
            return False
        everything = {name: ALL for name in chosen}
        return finite(board.run(target, everything)[1])

    # --- two jobs in turn ---

    def check_apart(self, board, jobs):
        """Nothing that a job's dashboard shows is of the other job, which ran on the same devices right before or after."""
        operation = board.panel("Sent by operation")["targets"][0]
        for strategy, (job, begin, end) in jobs.items():
            other, = (s for s in jobs if s != strategy)
            chosen = {"job_id": job, "attempt": ALL, "rank": ALL}
            sent = {labels["operation"]: max(number for _, number in points)
                    for labels, points in board.run(operation, chosen)[1]}
            with self.subTest(job=strategy):
                self.assertGreater(sent[strategy], 0)
                self.assertEqual(sent[other], 0)
                for panel in board.panels:
                    for target in panel["targets"]:
                        if target["instant"] or "$__range" in target["expr"]:
                            continue
                        for _, points in board.run(target, chosen)[1]:
                            window = 60  # a rate is shown for as long as its window holds two scrapes of the job
                            late = max(t for t, _ in points)
                            self.assertGreaterEqual(min(t for t, _ in points), begin - 1, panel["title"])
                            self.assertLessEqual(late, end + 1 + window, panel["title"])
                tokens = sum(points[0][1] for _, points in board.run(board.panel("Ranks")["targets"][0], chosen)[1])
                whole = self.JOBS[strategy]["input"]["tokens"]
                print(f"... {strategy}: {tokens:.0f} of {whole} tokens between its first scrape and its last")
                # What was before the first scrape is missing, and increase() adds up to a tenth at each end: of both jobs
                # together it would be more.
                self.assertTrue(0 < tokens < 1.2 * whole, f"{tokens} of {whole}")


class Alerts(Monitored):
    lease = "6s"
    hurry = 60

    def setUp(self):
        self.fired = set()
        self.hold = None
        super().setUp()
        self.hold = self.dir / "hold-execute"

    # --- what there is beside the two nodes ---

    def coordinator_environment(self):
        """Its disk is slow while a file exists."""
        library = os.environ["SEQPAR_SLOW_DISK"]
        return {"LD_PRELOAD": library, "SLOW_DISK": str(self.dir / "slow-disk"),
                "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}

    def start_others(self):
        return {**self.start_gpu_worker(), **self.start_small_worker()}

    def start_gpu_worker(self):
        """One with a GPU, drained, so that no job of another fault goes there."""
        self.gpus = FakeGpus(self.dir / "gpus", 1)
        self.start_worker("node-gpu", "--devices", "cuda", "--test-gpu-retry", 0.2, env=self.gpus.environment())
        self.wait_ready("node-gpu")
        self.cli("drain", "node-gpu")
        return {"gpu": [self.metrics_address("node-gpu")]}

    def start_small_worker(self):
        """A worker that belongs to no cluster: its state folder and its data root are a file system of its own, for it to
        be filled, and its certificate can be replaced by one that ends soon."""
        folder, ports = self.dir / "small-state", self.dir / "small.metrics"
        folder.mkdir()
        self.authority = Authority(self.dir)
        certificate, key = self.authority.issue("small", "URI:seqpar://node/small")
        root = [] if os.getuid() == 0 else ["-Ur"]
        mount = f'mount -t tmpfs -o size=4m none "{folder}" && mkdir "{folder}/data" && exec "$@"'
        worker = [BIN / "seqpar-worker", "--coordinator", "127.0.0.1:1", "--node-name", "small", "--cpu-slots", 1,
                  "--tls-ca", self.authority.cert, "--tls-cert", certificate, "--tls-key", key,
                  "--state-dir", folder, "--data-root", f"small={folder}/data", "--metrics-listen", "127.0.0.1:0", "--metrics-port-file", ports]
        self.small = self.start(["unshare", "-m", *root, "sh", "-c", mount, "sh", *worker], self.dir / "small.log")
        self.small_folder = pathlib.Path(f"/proc/{self.small.pid}/root{folder}")
        wait_for(lambda: ports.exists() or self.small.popen.poll() is not None, "the worker with a small disk")
        if self.small.popen.poll() is not None:
            print(f"... SKIPPED: no file system can be mounted for {BY_SMALL}: {log_tail(self.small.log, 2)}")
            self.small = None
            return {}
        return {"small": [self.metrics_address("small")]}

    # --- faults ---

    def fires(self, name, seconds=60):
        wait_for(lambda: name in self.prometheus.firing(), f"{name} to fire", seconds)
        print(f"... {name} fires {time.time() - self.begin:.0f} s after the start", flush=True)
        self.fired.add(name)

    @contextlib.contextmanager
    def fault(self, name):
        """`name` does not fire before what is within, and fires within or after it."""
        with self.subTest(alert=name):
            self.assertNotIn(name, self.prometheus.firing())
            yield
            if name not in self.fired:
                self.fires(name)

    def test_each_fault_fires_its_alert(self):
        wait_for(lambda: self.prometheus.number("count(seqpar_state_dir_free_bytes)"), "a scrape")
        with contextlib.ExitStack() as slow_alerts:  # those that wait long: the others meanwhile
            if self.small is not None:
                for name in BY_SMALL:
                    slow_alerts.enter_context(self.fault(name))
                self.authority.issue("small", "URI:seqpar://node/small", days=10)
                (self.small_folder / "fill").write_bytes(bytes(int(3.8 * 2**20)))
            slow_alerts.enter_context(self.fault("SeqparPredictionDrift"))
            self.late_jobs(4)
            self.late_jobs(1)
            self.verification_error()
            self.attempts_failing()
            self.slow_rank()
            self.device_set_aside()
            slow_alerts.enter_context(self.fault("SeqparQueueStuck"))
            self.cli("drain", "node-a")
            self.submit(self.write_job())
            self.store_slow()
            self.lease_margin_low()
        if self.small is not None:
            self.disks_filling()
        self.worker_lost()
        self.coordinator_down()
        missing = set() if self.small else BY_SMALL
        self.assertEqual(self.fired, monitoring.alert_names() - missing)

    def disks_filling(self):
        """It fires of both that the small worker has: its state folder's, and its data root's."""
        for labels in ('root=""', 'root="small"'):
            firing = f'count(ALERTS{{alertname="SeqparDiskFilling", alertstate="firing", {labels}}})'
            wait_for(lambda: self.prometheus.number(firing), f"the alert with {labels}")

    def verification_error(self):
        with self.fault("SeqparVerificationError"):
            state = self.wait_ended(self.submit(self.write_job(verify={"rows": 4, "max_error": 1e-12})))
            self.assertEqual(state["state"], "JOB_STATE_FAILED")
        self.wait_succeeded(self.submit(self.write_job(verify={"rows": 4})))
        wait_for(lambda: "SeqparVerificationError" not in self.prometheus.firing(), "the alert to end")

    def attempts_failing(self):
        with self.fault("SeqparAttemptsFailing"):
            self.hold.touch()
            job = self.submit(self.write_job(max_attempts=3))
            for attempt in (1, 2, 3):
                wait_for(lambda n=attempt: self.ranks_of(job, n) == 4, f"attempt {attempt} to run")
                os.kill(self.executors(self.workers["node-a"])[0], signal.SIGKILL)
            self.assertEqual(self.wait_ended(job)["state"], "JOB_STATE_FAILED")
            self.hold.unlink()

    def ranks_of(self, job, attempt=1):
        """How many ranks of an attempt run now."""
        return sum(len(self.scrape(node).find("seqpar_rank_info", job_id=job, attempt=str(attempt))) for node in NODES)

    def late_jobs(self, count):
        """Jobs of one rank, held in execute for much longer than they were predicted to take there."""
        def executed():
            return sum(self.scrape(node).sum("seqpar_device_phase_seconds_total", phase="execute") for node in NODES)
        self.hold.touch()
        jobs = [self.submit(self.write_job(workers={"min": 1, "max": 1})) for _ in range(count)]
        wait_for(lambda: all(self.ranks_of(job) == 1 for job in jobs), "every rank to run")
        begun = executed()
        wait_for(lambda: executed() > begun + count * 0.5, "them to be late")
        self.hold.unlink()
        for job in jobs:
            self.wait_succeeded(job)

    def slow_rank(self):
        """An executor that is stopped for three quarters of the time."""
        with self.fault("SeqparSlowRank"):
            job = self.submit(self.write_job(config=LARGE, input={"seed": 2, "tokens": 12001}))
            wait_for(lambda: len(self.executors(self.workers["node-b"])) == SLOTS, "executors")
            slow = self.executors(self.workers["node-b"])[0]
            end = threading.Event()

            def disturb():
                while alive(slow):
                    os.kill(slow, signal.SIGSTOP)
                    done = end.wait(0.15)
                    os.kill(slow, signal.SIGCONT)
                    if done or end.wait(0.05):
                        return
            thread = threading.Thread(target=disturb)
            thread.start()
            try:
                self.fires("SeqparSlowRank")
            finally:
                end.set()
                thread.join()
                self.cli("cancel", job)
                self.wait_ended(job)

    def device_set_aside(self):
        """A GPU whose memory is still held once its rank is gone."""
        with self.fault("SeqparDeviceSetAside"):
            self.cli("drain", "node-gpu", "--undo")
            self.gpus.used[0] += GIB
            self.gpus.write()
            self.wait_succeeded(self.submit(self.write_job(workers={"min": 1, "max": 1}, devices="cuda")))

    def store_slow(self):
        with self.fault("SeqparStoreSlow"):
            (self.dir / "slow-disk").touch()
            while "SeqparStoreSlow" not in self.prometheus.firing():
                self.cli("cancel", self.submit(self.write_job()))
                self.assertLess(time.time(), self.begin + scaled(300))
        (self.dir / "slow-disk").unlink()

    def lease_margin_low(self):
        """A worker that stands still for more than half of a lease, and less than a whole one."""
        with self.fault("SeqparLeaseMarginLow"):
            self.workers["node-a"].popen.send_signal(signal.SIGSTOP)
            try:
                wait_for(lambda: (self.prometheus.number('seqpar_node_lease_left_seconds{node="node-a"}') or 6) < 3,
                         "its lease to run out by half", 20)
            finally:
                self.workers["node-a"].popen.send_signal(signal.SIGCONT)

    def worker_lost(self):
        with self.fault("SeqparWorkerLost"):
            self.workers["node-b"].kill()

    def coordinator_down(self):
        with self.fault("SeqparCoordinatorDown"):
            self.coordinator.kill()


if __name__ == "__main__":
    unittest.main()
