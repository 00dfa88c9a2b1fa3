"""What a client sees of the service: idempotent submits, refusals, waiting, two jobs at once, the exit codes."""
import json
import re
import signal
import subprocess
import unittest

from harness import BIN, ClusterTest, environment, scaled, wait_for


class Service(ClusterTest):
    def test_a_repeated_request_id_starts_one_job(self):
        path = self.write_job()
        first = self.submit(path, "--request-id", "abc")
        self.assertEqual(self.submit(path, "--request-id", "abc"), first)
        other = self.write_job("other.yaml", priority=1)
        code, _, err = self.run_cli("submit", "-f", other, "--request-id", "abc")
        self.assertEqual(code, 3, err)
        self.assertIn("REQUEST_ID_REUSED", err)
        self.wait_succeeded(first)
        self.assertEqual(len(self.cli("list")["jobs"]), 1)

    def test_an_invalid_job_is_told_everything_at_once(self):
        path = self.write_job(config={"hidden_size": -1, "num_attention_heads": 5, "num_key_value_heads": 2,
                                      "head_dim": 7, "num_hidden_layers": 1, "intermediate_size": 8,
                                      "rope_theta": 10000.0},
                              mask={"kind": "causal", "documents": [3]}, output={"file": "../outside.safetensors"})
        code, _, err = self.run_cli("submit", "-f", path)
        self.assertEqual(code, 3, err)
        for field in ("config.hidden_size", "config.num_key_value_heads", "config.head_dim", "mask.documents",
                      "output.file"):
            self.assertIn(field, err)
        self.assertEqual(self.cli("list").get("jobs", []), [])

    def test_a_mesh_that_cannot_mean_anything_is_refused_with_the_nearest(self):
        path = self.write_job(parallelism={"strategy": "ulysses", "ulysses": 5}, workers={"min": 5})
        code, _, err = self.run_cli("submit", "-f", path)
        self.assertEqual(code, 3, err)
        self.assertIn("parallelism.ulysses", err)
        self.assertIn("4", err)

    def test_an_unknown_field_names_its_neighbour(self):
        path = self.write_job(maks={"kind": "causal"})
        code, _, err = self.run_cli("submit", "-f", path)
        self.assertEqual(code, 3, err)
        self.assertIn("maks", err)
        self.assertIn("mask", err)

    def test_exit_codes(self):
        self.assertEqual(self.run_cli("get", "j-0000000000000000")[0], 4)
        self.assertEqual(self.run_cli("no-such-command")[0], 2)
        self.assertEqual(self.run_cli("submit", "--wait", "-f", self.write_job())[0], 0)
        down = subprocess.run([str(BIN / "seqpar"), "--server", "127.0.0.1:1", "--timeout", "2", "list"],
                              capture_output=True, env=environment(), timeout=scaled(60))
        self.assertEqual(down.returncode, 5, down.stderr)

    def test_a_job_that_asks_for_more_waits_and_says_why(self):
        job = self.submit(self.write_job(workers={"min": 6, "max": 6}))
        reason = wait_for(lambda: self.get(job).get("reason"), "a reason")
        self.assertIn("6", reason)
        self.assertEqual(self.get(job)["state"], "JOB_STATE_PENDING")
        self.start_worker("node-b", slots=2)
        done = self.wait_succeeded(job)
        self.assertEqual({d.split("/")[0] for d in done["attempts"][-1]["devices"]}, {"node-a", "node-b"})

    def test_a_job_that_no_mesh_within_its_limits_fits_is_refused(self):
        path = self.write_job(input={"seed": 2, "tokens": 50_000_000}, workers={"min": 1, "max": 2})
        code, _, err = self.run_cli("submit", "-f", path)
        self.assertEqual(code, 3, err)
        for words in ("INFEASIBLE", "comes nearest and needs", "without the limits", "would fit"):
            self.assertIn(words, err)
        # The same without the limit waits, and says for how many.
        job = self.submit(self.write_job("more.yaml", input={"seed": 2, "tokens": 50_000_000}, workers={"min": 1}))
        reason = wait_for(lambda: self.get(job).get("reason"), "a reason")
        self.assertRegex(reason, r"waits for \d+ devices, where .* would fit")
        self.assertEqual(self.get(job)["state"], "JOB_STATE_PENDING")

    def test_a_drain_outlives_coordinator_and_worker(self):
        self.cli("drain", "node-a")
        job = self.submit(self.write_job())
        self.coordinator.kill()
        self.start_coordinator()
        self.wait_node("node-a", "DRAINING")
        self.worker.kill()
        self.wait_node("node-a", "LOST")
        self.assertTrue(self.cli("nodes")["nodes"][0]["drained"])
        self.start_worker("node-a")
        self.wait_node("node-a", "DRAINING")
        self.assertEqual(self.get(job)["state"], "JOB_STATE_PENDING")
        self.cli("drain", "node-a", "--undo")
        self.assertEqual(len(self.wait_succeeded(job)["attempts"]), 1)

    def test_help_has_every_flag_with_its_variable_and_default(self):
        def options(binary):
            text = subprocess.run([str(BIN / binary), "--help"], capture_output=True, text=True, check=True,
                                  env=environment()).stdout
            lines = re.split(r"\n(?=  -)", text.split("Options:")[1].split("Examples:")[0])
            return {re.search(r"--[a-z-]+", line).group(): line for line in lines if "--" in line}
        do_and_end = ("--help", "--version", "--hash-token", "--restore", "--list-failpoints", "--output")
        for binary, prefix in (("seqpar-coordinator", "SEQPAR_COORDINATOR_"), ("seqpar-worker", "SEQPAR_WORKER_")):
            for flag, text in options(binary).items():
                if flag not in do_and_end and not flag.startswith("--test-"):
                    self.assertIn(f"Env:{prefix}{flag[2:].upper().replace('-', '_')}", text, (binary, flag))
        coordinator = options("seqpar-coordinator")
        for flag, default in (("--listen", "127.0.0.1:7700"), ("--heartbeat", "default 1s"), ("--lease", "6s"),
                              ("--bootstrap-timeout", "30s"), ("--no-progress-timeout", "60s"),
                              ("--max-attempts", "3")):
            self.assertIn(default, coordinator[flag])
        worker = options("seqpar-worker")
        for flag, default in (("--coordinator", "127.0.0.1:7700"), ("--threads-per-slot", "cores / slots"),
                              ("--memory-per-slot", "0.8 of the memory / slots")):
            self.assertIn(default, worker[flag])
        client = options("seqpar")
        self.assertIn("Env:SEQPAR_SERVER", client["--server"])
        self.assertIn("127.0.0.1:7700", client["--server"])

    def test_only_loopback_unless_told_otherwise(self):
        listening = set()
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{self.coordinator.pid}/net/{table}") as f:
                listening |= {line.split()[1] for line in f.readlines()[1:] if line.split()[3] == "0A"}
        # 127.0.0.1, as such or mapped into IPv6.
        ours = [address.split(":")[0] for address in listening if address.endswith(f":{self.port:04X}")]
        self.assertTrue(ours)
        for host in ours:
            self.assertIn(host, ("0100007F", "0000000000000000FFFF00000100007F"))

    def test_two_jobs_run_at_once_on_disjoint_slots(self):
        hold = self.dir / "hold"
        hold.touch()
        self.start_worker("node-b", "--test-hold", f"execute:{hold}", slots=4)
        self.wait_ready("node-b")
        self.cli("drain", "node-a")
        two = {"min": 2, "max": 2}
        jobs = [self.submit(self.write_job(f"{i}.yaml", workers=two)) for i in range(2)]
        wait_for(lambda: all(self.get(j).get("phase") == "JOB_PHASE_EXECUTE" for j in jobs), "both to execute")
        busy = [d["job"] for n in self.cli("nodes")["nodes"] for d in n["devices"] if d.get("job")]
        self.assertEqual(sorted(busy), sorted(jobs * 2))
        hold.unlink()
        for job in jobs:
            self.wait_succeeded(job)

    def test_two_live_jobs_never_share_a_target(self):
        self.cli("drain", "node-a")
        path = self.write_job(output={"file": "same.safetensors"})
        self.submit(path)
        code, _, err = self.run_cli("submit", "-f", path)
        self.assertNotEqual(code, 0)
        self.assertIn("OUTPUT_IN_USE", err)

    def test_an_existing_output_is_refused_unless_overwrite(self):
        path = self.write_job(output={"file": "out.safetensors"})
        self.wait_succeeded(self.submit(path))
        first = (self.data / "out.safetensors").read_bytes()
        code, _, err = self.run_cli("submit", "-f", path)
        self.assertEqual(code, 3, err)
        self.assertIn("output.file", err)
        again = self.write_job("again.yaml", output={"file": "out.safetensors", "overwrite": True},
                               parallelism={"strategy": "ring", "ring": 4})
        self.wait_succeeded(self.submit(again))
        self.assertEqual(len((self.data / "out.safetensors").read_bytes()), len(first))
        self.assertEqual([p.name for p in self.data.iterdir() if "seqpar-" in p.name], [])

    def test_watch_shows_the_end_and_interrupting_leaves_the_job(self):
        hold = self.dir / "hold"
        hold.touch()
        self.start_worker("node-b", "--test-hold", f"execute:{hold}")
        self.wait_ready("node-b")
        self.cli("drain", "node-a")
        job = self.submit(self.write_job())
        watch = subprocess.Popen([str(BIN / "seqpar"), "--server", self.server, "watch", job],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        wait_for(lambda: self.get(job).get("phase") == "JOB_PHASE_EXECUTE", "the execute phase")
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=scaled(10))
        self.assertEqual(watch.returncode, 130)
        self.assertEqual(self.get(job)["state"], "JOB_STATE_RUNNING")
        hold.unlink()
        done = subprocess.run([str(BIN / "seqpar"), "--server", self.server, "watch", job], capture_output=True,
                              text=True, timeout=scaled(60), env=environment())
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_plan_answers_without_running_and_for_a_cluster_in_a_file(self):
        plan = self.cli("plan", "-f", self.write_job())
        self.assertEqual(len(plan["plan"]["ranks"]), 4)
        self.assertTrue(plan["plan"]["reason"])
        cluster = self.data / "cluster.yaml"
        cluster.write_text(json.dumps({
            "nodes": [{"name": "n", "count": 2, "devices_each": 8,
                       "devices": [{"kind": "cpu", "name": "slot", "memory_bytes": 1 << 30, "threads": 1,
                                    "rates": {"gemm_flops": 8e10, "attention_forward_flops": 7e10,
                                              "attention_backward_flops": 6e10, "copy_bytes": 1e10,
                                              "peak_flops": 1e11}}],
                       "local": {"latency": 1e-6, "bandwidth": 1e10}}],
            "network": {"latency": 1e-5, "bandwidth": 1e9}}))
        sixteen = self.write_job("sixteen.yaml", workers={"min": 16, "max": 16}, input={"seed": 1, "tokens": 65537})
        plan = self.cli("plan", "-f", sixteen, "--cluster", cluster)
        self.assertEqual(len(plan["plan"]["ranks"]), 16)
        self.assertEqual(self.cli("list").get("jobs", []), [])

    def test_logs_of_each_rank(self):
        job = self.submit(self.write_job())
        self.wait_succeeded(job)
        logs = self.cli("logs", job)["logs"]
        self.assertEqual([log["rank"] if "rank" in log else 0 for log in logs], [0, 1, 2, 3])

    def test_ranks_send_by_the_transports_of_ucx_tls(self):
        self.start_worker("node-tcp", "--labels", "by=tcp", slots=3, env={"UCX_TLS": "tcp,self"})
        self.wait_ready("node-tcp")
        job = self.submit(self.write_job(workers={"min": 3, "max": 3}, devices={"selector": {"by": "tcp"}}))
        self.wait_succeeded(job)
        connected = [re.search(r'transport="UCX [\d.]+, (\S+) on .*; (.*) to ranks', log["text"]).groups()
                     for log in self.cli("logs", job)["logs"]]
        self.assertEqual([asked for asked, _ in connected], ["tcp,self"] * 3)
        for _, taken in connected:
            self.assertRegex(taken, r"^tcp/[^+]*$")


if __name__ == "__main__":
    unittest.main()
