"""Metrics of real processes: names as documented, series that begin at zero, move while a job runs, outlive executors,
and go with what they are about."""
import os
import pathlib
import re
import signal
import unittest

from harness import BIN, ClusterTest, Process, log_tail, scaled, wait_for

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
WITH_TLS = {"seqpar_tls_certificate_expiry_timestamp_seconds", "seqpar_tls_certificate_lifetime_seconds"}
# What moves without a job.
NEVER_ZERO = re.compile(r"seqpar_(process_|store_seconds|rpc_seconds|rpcs_total|lease_margin|worker_(attaches|heartbeat))")


def documented():
    """{process: {metric: (type, {label: values or None})}}, from the page."""
    found, process, name = {}, None, None
    for line in DOCS.read_text().splitlines():
        if line.startswith("## Of "):
            process, name = found.setdefault(line[len("## Of "):], {}), None
        elif line.startswith("### "):
            name = line[4:]
            process[name] = [None, {}]
        elif name and process[name][0] is None:
            process[name][0] = line.split(".")[0]
        elif name and (label := re.match(r"- `(\w+)`: (.*)", line)):
            values = re.findall(r"`([^`]+)`", label[2].rpartition(";")[2]) if "; `" in label[2] else None
            process[name][1][label[1]] = values
    return found


class WithMetrics(ClusterTest):
    metrics = True
    lease = "20s"  # a busy machine is no lost node

    def start_worker(self, name, *more, **options):
        return super().start_worker(name, "--test-hold", f"execute:{self.dir / 'hold-execute'}", *more, **options)

    def hold(self):
        (self.dir / "hold-execute").touch()

    def release(self):
        (self.dir / "hold-execute").unlink(missing_ok=True)

    def running(self, name="node-a"):
        return self.scrape(name).find("seqpar_rank_info")

    def held_job(self, ranks=4, **changes):
        """A job whose ranks are held at the begin of execute, as the metrics tell."""
        self.hold()
        job = self.submit(self.write_job(**changes))

        def executing():
            scrape = self.scrape("node-a")
            seconds = scrape.find("seqpar_device_phase_seconds_total", phase="execute")
            return len(scrape.find("seqpar_rank_info", job_id=job)) == ranks and sum(v > 0 for _, v in seconds) >= ranks
        wait_for(executing, "every rank at execute")
        return job

    def wait_free(self, devices):
        """Nodes and devices are counted a few times a second."""
        wait_for(lambda: self.scrape("coordinator").sum("seqpar_devices", state="FREE") == devices,
                 f"{devices} free devices")

    def check_documented(self, scrape, *processes):
        docs = {name: entry for process in processes for name, entry in documented()[process].items()}
        self.assertLessEqual(set(scrape.types), set(docs))
        for name, kind in scrape.types.items():
            self.assertEqual(kind, docs[name][0], name)
        for name, labels, _ in scrape.series:
            base = name if name in docs else re.sub("_(bucket|sum|count)$", "", name)
            self.assertIn(base, docs)
            self.assertEqual(set(labels) - {"le"}, set(docs[base][1]), name)
            for label, value in labels.items():
                values = docs[base][1].get(label)
                self.assertTrue(values is None or value in values, f"{name}: {label}={value}")
        return set(docs) - set(scrape.types)


class Metrics(WithMetrics):

    # --- what is there ---

    def test_all_is_documented_and_begins_at_zero(self):
        self.wait_free(4)
        coordinator, worker = self.scrape("coordinator"), self.scrape("node-a")
        missing = self.check_documented(coordinator, "coordinator and worker", "coordinator")
        self.assertEqual(missing - WITH_TLS, {"seqpar_rank_slowness_ratio"})  # no rank runs
        missing = self.check_documented(worker, "coordinator and worker", "worker")
        self.assertEqual(missing - WITH_TLS, {"seqpar_rank_info", "seqpar_rank_progress_ratio"})
        self.assertLessEqual(WITH_TLS, missing)
        for scrape in (coordinator, worker):
            for name, labels, number in scrape.series:
                if name.endswith(("_total", "_count", "_sum", "_bucket")) and not NEVER_ZERO.match(name):
                    self.assertEqual(number, 0, f"{name} {labels}")
        self.assertLess(len(coordinator.series), 1300)  # small, whatever it is asked
        self.assertEqual(len(coordinator.find("seqpar_jobs")), 2 * 9)
        self.assertEqual(coordinator.find("seqpar_devices", state="FREE"), [({"state": "FREE"}, 4)])
        self.assertEqual(coordinator.sum("seqpar_nodes", state="READY"), 1)
        self.assertEqual(len(worker.find("seqpar_device_tokens_total", node="node-a")), 4)
        self.assertEqual(worker.sum("seqpar_worker_attached"), 1)
        for scrape in (coordinator, worker):
            for name in ("seqpar_data_root_free_bytes", "seqpar_data_root_size_bytes"):
                (labels, number), = scrape.find(name)
                self.assertEqual((labels, number > 0), ({"root": "data"}, True))
        left = coordinator.sum("seqpar_node_lease_left_seconds", node="node-a")
        self.assertTrue(0 < left <= coordinator.sum("seqpar_lease_length_seconds") == 20, left)

    def test_health(self):
        for name in ("coordinator", "node-a"):
            self.assertEqual(self.http(name, "/healthz"), (200, "ok\n"))
            self.assertEqual(self.http(name, "/readyz"), (200, "ok\n"))
            self.assertEqual(self.http(name, "/")[0], 404)
        self.coordinator.kill()
        wait_for(lambda: self.http("node-a", "/readyz")[0] == 503, "the worker to be without a coordinator")
        self.assertEqual(self.http("node-a", "/healthz")[0], 200)
        self.start_coordinator()
        wait_for(lambda: self.http("node-a", "/readyz")[0] == 200, "the worker to be welcomed again")
        self.assertEqual(self.scrape("node-a").sum("seqpar_worker_attaches_total"), 2)
        self.assertEqual(self.scrape("coordinator").sum("seqpar_term"), 2)

    # --- a job ---

    def test_a_job_from_begin_to_end(self):
        job = self.held_job(verify={"rows": 4})
        ranks = {(labels["rank"], labels["device"]) for labels, _ in self.running()}
        self.assertEqual({rank for rank, _ in ranks}, {"0", "1", "2", "3"})
        for labels, number in self.running():
            self.assertEqual((number, labels["node"], labels["job_id"], labels["attempt"]), (1, "node-a", job, "1"))
        wait_for(lambda: self.scrape("coordinator").sum("seqpar_jobs", state="RUNNING", phase="execute") == 1,
                 "the coordinator to count it")
        # The time in a phase goes on while nothing else does.
        before = self.scrape("node-a")
        spent = before.sum("seqpar_device_phase_seconds_total", phase="execute")
        wait_for(lambda: self.scrape("node-a").sum("seqpar_device_phase_seconds_total", phase="execute") > spent,
                 "the seconds of execute to grow")
        self.assertEqual(before.sum("seqpar_device_busy"), 4)
        self.assertGreater(before.sum("seqpar_device_memory_predicted_bytes"), 0)
        self.assertEqual(before.sum("seqpar_device_bootstrap_seconds_count"), 4)
        self.assertEqual(before.sum("seqpar_device_flops_total"), 0)
        self.release()
        report = self.wait_succeeded(job)["report"]
        wait_for(lambda: not self.running(), "rank_info to go")

        after = self.scrape("node-a")
        self.assertEqual(after.find("seqpar_rank_progress_ratio"), [])
        self.assertEqual(after.sum("seqpar_device_busy"), 0)
        self.assertEqual(after.sum("seqpar_device_memory_used_bytes"), 0)
        self.assertEqual(after.sum("seqpar_device_tokens_total"), 131)
        for rank in report["ranks"]:
            device = {"node": "node-a", "device": rank["device"].split("/")[1]}
            close = {"seqpar_device_flops_total": rank["flops"],
                     "seqpar_device_compute_seconds_total": rank["compute_seconds"],
                     "seqpar_device_communication_exposed_seconds_total": rank["communication_exposed_seconds"],
                     "seqpar_device_communication_hidden_seconds_total": rank["communication_hidden_seconds"],
                     "seqpar_device_memory_peak_bytes": int(rank["peak_bytes"]),
                     "seqpar_device_memory_predicted_bytes": int(rank["predicted_peak_bytes"]),
                     "seqpar_device_predicted_step_seconds": report["predicted_step_seconds"],
                     "seqpar_device_verification_error": rank["verify_error"]}
            for name, reported in close.items():
                self.assertAlmostEqual(after.sum(name, **device), reported, delta=1e-6 * max(1, reported), msg=name)
            for metric, field in (("bytes", "bytes"), ("messages", "messages")):
                reported = {}
                for traffic in rank.get("traffic", []):
                    reported.setdefault(traffic["operation"], 0)
                    reported[traffic["operation"]] += int(traffic[field])
                name = f"seqpar_device_sent_{metric}_total"
                counted = {labels["operation"]: number for labels, number in after.find(name, link="local", **device)
                           if number > 0 and labels["operation"] != "control"}
                self.assertEqual(counted, reported)
                self.assertEqual(after.sum(name, link="network", **device), 0)  # one node
        self.assertEqual(after.sum("seqpar_device_executors_started_total"), 4)
        self.assertEqual(after.sum("seqpar_device_executor_restarts_total"), 0)
        self.check_documented(after, "coordinator and worker", "worker")

        coordinator = self.scrape("coordinator")
        self.check_documented(coordinator, "coordinator and worker", "coordinator")
        self.assertEqual(coordinator.sum("seqpar_jobs"), 0)
        self.assertEqual(coordinator.sum("seqpar_jobs_ended_total", state="SUCCEEDED"), 1)
        self.assertEqual(coordinator.sum("seqpar_attempts_total"), 1)
        self.assertEqual(coordinator.sum("seqpar_job_queue_wait_seconds_count"), 1)
        self.assertGreater(coordinator.sum("seqpar_plan_seconds_count"), 0)
        self.assertEqual(coordinator.sum("seqpar_rpc_seconds_count", method="JobService/CreateJob", code="OK"), 1)
        self.cli("get", "j-0000000000000000", check=False)
        wait_for(lambda: self.scrape("coordinator").sum("seqpar_rpc_seconds_count", method="JobService/GetJob",
                                                        code="NOT_FOUND") == 1, "the time of a call that failed")
        for phase in ("submit", "validate", "plan", "place", "bootstrap", "execute", "report"):
            self.assertEqual(coordinator.sum("seqpar_job_phase_seconds_count", phase=phase), 1, phase)
        strategy = report["strategy"]
        ratio = "seqpar_predicted_over_measured_ratio"
        self.assertAlmostEqual(coordinator.sum(f"{ratio}_sum", quantity="time", strategy=strategy),
                               report["predicted_step_seconds"] / report["step_seconds"], places=6)
        self.assertEqual(coordinator.sum(f"{ratio}_count", quantity="memory"), 1)
        self.assertEqual(coordinator.sum("seqpar_rank_imbalance_ratio_count", strategy=strategy), 1)

    def test_ranks_on_two_nodes_send_over_the_network(self):
        self.start_worker("node-b")
        self.wait_ready("node-b")
        job = self.submit(self.write_job(workers={"min": 8, "max": 8}, parallelism={"strategy": "ring", "ring": 8},
                                         mask={"kind": "full"}))  # keys go all the way round
        self.wait_succeeded(job)
        for name in ("node-a", "node-b"):
            scrape = self.scrape(name)
            for link in ("local", "network"):
                self.assertGreater(scrape.sum("seqpar_device_sent_bytes_total", operation="ring", link=link), 0, link)
        self.wait_free(8)

    # --- executors that go, or stand still ---

    def test_counters_do_not_fall_when_an_executor_is_killed(self):
        self.wait_succeeded(self.submit(self.write_job()))
        job = self.held_job()
        before = self.scrape("node-a")
        self.assertEqual(before.sum("seqpar_device_tokens_total"), 131)
        os.kill(self.executors(self.worker)[1], signal.SIGKILL)
        last = {"": 0}

        def restarted():
            scrape = self.scrape("node-a")
            for name, labels, number in scrape.series:
                if not name.endswith(("_total", "_count", "_sum", "_bucket")):
                    continue
                key = name + repr(sorted(labels.items()))
                self.assertGreaterEqual(number, last.get(key, 0), key)
                last[key] = number
            return len(scrape.find("seqpar_rank_info", job_id=job, attempt="2")) == 4
        wait_for(restarted, "the second attempt")
        self.release()
        self.wait_succeeded(job)
        wait_for(lambda: not self.running(), "rank_info to go")
        restarted()
        after = self.scrape("node-a")
        self.assertEqual(after.sum("seqpar_device_executors_started_total"), 12)
        self.assertEqual(after.sum("seqpar_device_executor_restarts_total"), 4)  # a gang ends whole
        self.assertEqual(after.sum("seqpar_device_tokens_total"), 2 * 131)
        coordinator = self.scrape("coordinator")
        self.assertEqual(coordinator.sum("seqpar_attempt_failures_total", reason="RANK_FAILED"), 1)
        self.assertEqual(coordinator.sum("seqpar_attempt_failures_total"), 1)

    def test_a_stopped_executor_delays_no_scrape(self):
        job = self.held_job()
        stopped = self.executors(self.worker)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            # Answered although none of them can: each scrape has a deadline of its own.
            for _ in range(3):
                scrape = self.scrape("node-a")
                self.assertEqual(len(scrape.find("seqpar_rank_info", job_id=job)), 4)
                self.assertEqual(self.http("node-a", "/healthz")[0], 200)
                self.scrape("coordinator")
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        self.release()
        self.wait_succeeded(job)

    # --- devices and nodes that go ---

    def test_series_go_with_their_device_and_node(self):
        self.worker.kill(signal.SIGTERM)
        self.worker = self.start_worker("node-a", slots=2)
        self.wait_free(2)
        devices = {labels["device"] for _, labels, _ in self.scrape("node-a").series if "device" in labels}
        self.assertEqual(devices, {"0", "1"})
        self.assertEqual(self.scrape("coordinator").sum("seqpar_devices"), 2)


class ShortLease(WithMetrics):
    lease = "2s"

    def test_the_lease_of_a_lost_node_goes(self):
        self.assertEqual(len(self.scrape("coordinator").find("seqpar_node_lease_left_seconds")), 1)
        self.worker.kill()
        wait_for(lambda: not self.scrape("coordinator").find("seqpar_node_lease_left_seconds"), "the lease to be over")
        wait_for(lambda: self.scrape("coordinator").sum("seqpar_nodes", state="LOST") == 1, "the node to be lost")
        self.assertEqual(self.scrape("coordinator").find("seqpar_node_info", state="READY"), [])


class Ports(ClusterTest):
    """Where metrics are served, and where not."""
    metrics = True

    def test_a_port_that_is_taken(self):
        address = (self.dir / "node-a.metrics").read_text().strip()
        common = [BIN / "seqpar-worker", "--coordinator", self.server, "--node-name", "node-b", "--state-dir",
                  self.dir / "worker-node-a"]
        asked = Process([*common, "--metrics-listen", address], self.dir / "asked.log")
        self.processes.append(asked)
        self.assertEqual(asked.popen.wait(scaled(60)), 1)
        self.assertIn(f"cannot serve metrics on {address}", log_tail(asked.log))

    def test_a_new_state_folder_has_its_space_from_the_start(self):
        folder, ports = self.dir / "new" / "state", self.dir / "node-b.metrics"
        process = Process([BIN / "seqpar-worker", "--coordinator", self.server, "--node-name", "node-b", "--state-dir",
                           folder, "--metrics-listen", "127.0.0.1:0", "--metrics-port-file", ports], self.dir / "new.log")
        self.processes.append(process)
        wait_for(ports.exists, "the metrics port")
        self.assertTrue(folder.is_dir())  # it is asked for its space now, and then after ten seconds
        wait_for(lambda: self.scrape("node-b").find("seqpar_state_dir_free_bytes"), "its space")

    def test_off(self):
        file = self.dir / "off.metrics"
        process = Process([BIN / "seqpar-worker", "--coordinator", self.server, "--node-name", "node-b", "--state-dir",
                           self.dir / "worker-node-a", "--metrics-listen", "off", "--metrics-port-file", file],
                          self.dir / "off.log")
        self.processes.append(process)
        self.wait_ready("node-b")
        self.assertFalse(file.exists())


if __name__ == "__main__":
    unittest.main()
