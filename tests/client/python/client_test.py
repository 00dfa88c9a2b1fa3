"""The Python client against a real coordinator and worker."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

import grpc
import numpy as np

import seqpar
from harness import ClusterTest, read_safetensors, scaled, wait_for
from held import Held

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "client" / "python" / "examples"


class Clients:
    """Mixed into a ClusterTest."""

    def client(self, **options):
        client = seqpar.Client(self.server, timeout=scaled(30), **options)
        self.addCleanup(client.close)
        return client

    def job(self, **changes):
        """The harness's small job as a dict."""
        return json.loads(self.write_job(**changes).read_text())

    def in_thread(self, call):
        """Starts call(); the function returned joins it and gives its value, or raises what it raised."""
        outcome = {}

        def body():
            try:
                outcome["value"] = call()
            except Exception as error:  # noqa: BLE001  (handed to the test)
                outcome["error"] = error
        thread = threading.Thread(target=body)
        thread.start()

        def join():
            thread.join(scaled(90))
            self.assertFalse(thread.is_alive(), "still waiting")
            if "error" in outcome:
                raise outcome["error"]
            return outcome["value"]
        return join


class Service(Clients, ClusterTest):
    def test_results_are_those_of_one_rank_and_of_the_file(self):
        client = self.client()
        ended = {}
        for ranks, parallelism in ((4, {"strategy": "hybrid", "ulysses": 2, "ring": 2}), (1, None)):
            job = seqpar.Job(
                name="typed", config=seqpar.ModelConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2,
                                                        intermediate_size=48, num_hidden_layers=2, rope_theta=10000.0),
                weights=seqpar.TensorSource(seed=1), input=seqpar.Input(seed=2, tokens=131), pass_="forward_backward",
                grad_output=seqpar.TensorSource(seed=3), output=seqpar.Output(file=f"out-{ranks}.safetensors"),
                parallelism=seqpar.Parallelism(**parallelism) if parallelism else None,
                workers=seqpar.Workers(min=ranks, max=ranks), labels={"ranks": str(ranks)})
            changes = []
            ended[ranks] = client.run(job, progress=changes.append, timeout=scaled(90))
            self.assertEqual([c.revision for c in changes], sorted({c.revision for c in changes}))
            self.assertTrue(changes[-1].ended)
            self.assertEqual(list(client.watch(ended[ranks], revision=changes[-1].revision, timeout=scaled(30))), [])
        self.assertEqual((ended[4].report.mesh, len(ended[4].report.ranks)), ("U2 x R2", 4))
        four, one = client.results(ended[4]), client.results(ended[1].id)
        self.assertEqual(set(four), set(one))
        self.assertGreater(len(four), 10)
        self.assertEqual(four["hidden_states"].shape, (1, 131, 32))
        for name, value in four.items():
            error = np.linalg.norm(value - one[name]) / np.linalg.norm(one[name])
            self.assertLess(error, 1e-5, name)
            _, shape, values = read_safetensors(ended[4].output)[name]
            self.assertEqual(value.reshape(-1).tolist(), values.tolist())
            self.assertEqual(list(value.shape), shape)

    def test_bfloat16_results_and_folders_that_lie_elsewhere_here(self):
        client = self.client()
        done = client.run(self.job(dtype="bfloat16", output={"file": "out.safetensors"}))
        elsewhere = self.dir / "elsewhere"
        elsewhere.symlink_to(self.data)
        results = self.client(paths={str(self.data.resolve()): str(elsewhere)}).results(done)
        self.assertEqual(results.path.parent, elsewhere)
        self.assertEqual(results.dtype("hidden_states"), "BF16")
        _, _, values = read_safetensors(done.output)["hidden_states"]
        self.assertEqual(results["hidden_states"].reshape(-1).tolist(), values.tolist())
        self.assertGreater(np.abs(results["hidden_states"]).max(), 0)

    def test_a_file_a_dict_and_a_message_are_the_same_job(self):
        client = self.client()
        path = self.write_job()
        want = client.validate(path)
        self.assertEqual(client.validate(json.loads(path.read_text())), want)
        self.assertEqual(client.validate(seqpar.parse_job(path.read_text())), want)
        self.assertEqual(want.message.config.num_hidden_layers, 2)
        self.assertEqual(list(client.list()), [])

    def test_an_invalid_job_is_told_everything_at_once(self):
        client = self.client()
        job = self.job(config={"hidden_size": -1, "num_attention_heads": 5, "num_key_value_heads": 2, "head_dim": 7,
                               "num_hidden_layers": 1, "intermediate_size": 8, "rope_theta": 10000.0},
                       mask={"kind": "causal", "documents": [3]}, output={"file": "../outside.safetensors"})
        for call in (client.submit, client.validate, client.plan):
            with self.assertRaises(seqpar.InvalidError) as caught:
                call(job)
            error = caught.exception
            self.assertEqual((error.code, error.reason), ("INVALID_ARGUMENT", "INVALID_JOB"))
            fields = {v.field for v in error.violations}
            self.assertLessEqual({"config.hidden_size", "config.num_key_value_heads", "config.head_dim", "mask.documents",
                                  "output.file"}, fields)
        with self.assertRaises(seqpar.InvalidError) as caught:
            client.submit(self.job(parallelism={"strategy": "ulysses", "ulysses": 5}, workers={"min": 5}))
        self.assertIn("4", [v.nearest for v in caught.exception.violations])
        with self.assertRaises(seqpar.InfeasibleError) as caught:
            client.submit(self.job(input={"seed": 2, "tokens": 50_000_000}, workers={"min": 1, "max": 2}))
        self.assertEqual(caught.exception.reason, "INFEASIBLE")
        # That a job would wait is an answer: asked for once, and no loss of the coordinator.
        with self.assertRaises(seqpar.InfeasibleError) as caught:
            client.plan(self.job(workers={"min": 99, "max": 99}))
        self.assertEqual(caught.exception.reason, "TOO_FEW_DEVICES")
        self.assertNotIsInstance(caught.exception, ConnectionError)
        self.assertEqual(list(client.list()), [])

    def test_what_cannot_be_read_and_what_is_not_legal_are_told_together_as_the_command_line_does(self):
        client = self.client()
        path = self.data / "wrong.yaml"
        path.write_text("maks: {kind: causal}\nconfig:\n  hidden_size: '32'\n  num_attention_heads: 4\n"
                        "  num_hidden_layers: -3\n  intermediate_size: 48\nweights: {seed: 1}\n"
                        "input: {seed: 2, tokens: 131}\npriority: 5000\npass: forwards\ngrad_output: {seed: 1}\n")
        fields = ["maks", "config.hidden_size", "pass", "priority", "config.num_hidden_layers"]
        for call, verb in ((client.submit, "submit"), (client.validate, "submit"), (client.plan, "plan")):
            with self.assertRaises(seqpar.InvalidError) as caught:
                call(path)
            self.assertEqual([v.field for v in caught.exception.violations], fields)
            self.assertEqual(caught.exception.violations[1].description,
                             "must be a whole number, is the text '32' (line 3)")
            code, _, err = self.run_cli(verb, "-f", path)
            self.assertEqual((code, json.loads(err)["message"]), (3, caught.exception.message))
        self.assertEqual(list(client.list()), [])

    def test_a_request_id_starts_one_job(self):
        client = self.client()
        first = client.submit(self.job(), request_id="once")
        self.assertEqual(client.submit(self.job(), request_id="once").id, first.id)
        with self.assertRaises(seqpar.AlreadyExistsError) as caught:
            client.submit(self.job(priority=1), request_id="once")
        self.assertEqual(caught.exception.reason, "REQUEST_ID_REUSED")
        self.assertNotEqual(client.submit(self.job()).id, first.id)
        self.assertEqual(client.wait(first).state, seqpar.JobState.SUCCEEDED)

    def test_a_coordinator_that_says_nothing_any_more_is_noticed_while_a_job_waits(self):
        options = [(name, 1000 if name.startswith("grpc.keepalive_") or name == "grpc.http2.ping_timeout_ms" else value)
                   for name, value in seqpar.client._CHANNEL_OPTIONS]  # the same, sooner
        channel = grpc.insecure_channel(self.server, options=options)
        self.addCleanup(channel.close)
        waiting = self.client(channel=channel)
        job = waiting.submit(self.job(workers={"min": 64}))
        seen = []
        join = self.in_thread(lambda: waiting.wait(job, progress=seen.append, reconnect=1.0))
        wait_for(lambda: seen, "the first event")
        self.coordinator.popen.send_signal(signal.SIGSTOP)
        try:
            with self.assertRaises(seqpar.UnavailableError):
                join()
        finally:
            self.coordinator.popen.send_signal(signal.SIGCONT)
        self.client().cancel(job)

    def test_a_cancelled_and_a_failed_job(self):
        client = self.client()
        waiting = client.submit(self.job(workers={"min": 6, "max": 6}))
        with self.assertRaises(seqpar.DeadlineError):
            client.wait(waiting, timeout=0.3)
        self.assertIn("6", wait_for(lambda: client.get(waiting).reason, "a reason"))
        with self.assertRaises(ValueError):
            client.results(waiting)
        join = self.in_thread(lambda: client.wait(waiting))
        self.assertEqual(client.cancel(waiting).state, seqpar.JobState.CANCELLED)
        with self.assertRaises(seqpar.JobCancelledError) as caught:
            join()
        self.assertEqual(caught.exception.job.id, waiting.id)
        self.assertEqual(client.wait(waiting, check=False).state, seqpar.JobState.CANCELLED)

        failing = client.submit(self.job(verify={"rows": 4, "max_error": 1e-30}))
        with self.assertRaises(seqpar.JobFailedError) as caught:
            client.wait(failing)
        self.assertEqual(caught.exception.reason, "VERIFICATION_FAILED")
        self.assertEqual(caught.exception.job.state, seqpar.JobState.FAILED)
        with self.assertRaises(seqpar.JobFailedError):
            client.results(failing)

    def test_lists_come_page_by_page(self):
        client = self.client()
        ids = [client.submit(self.job(workers={"min": 6, "max": 6}, labels={"odd": str(i % 2)})).id for i in range(5)]
        with mock.patch("seqpar.client._PAGE_SIZE", 2):
            self.assertEqual([job.id for job in client.list()], ids[::-1])
            self.assertEqual([job.id for job in client.list(labels={"odd": "1"})], [ids[3], ids[1]])
        client.cancel(ids[0])
        self.assertEqual([job.id for job in client.list(states=["cancelled"])], [ids[0]])
        self.assertEqual(len(list(client.list(states=[seqpar.JobState.PENDING]))), 4)
        with self.assertRaisesRegex(seqpar.InvalidError, "pending"):
            client.list(states=["pendig"])

    def test_plans_and_why(self):
        client = self.client()
        plan = client.plan(self.job(workers={"min": 1, "max": 4}), all_candidates=True)
        self.assertEqual(plan.mesh.ranks, len(plan.ranks))
        self.assertEqual((plan.best[0].mesh, plan.best[0].strategy), (plan.mesh, plan.strategy))
        self.assertGreater(plan.prediction.step_seconds, 0)
        self.assertEqual(len(plan.candidates), plan.considered)
        self.assertEqual(sum(c.feasible for c in plan.candidates), plan.feasible)
        self.assertIn(str(plan.mesh), str(plan))
        cluster = {"nodes": [{"name": "n", "count": 2, "devices_each": 8, "devices": [
            {"kind": "cpu", "name": "slot", "memory_bytes": 1 << 30, "threads": 1,
             "rates": {"gemm_flops": 8e10, "attention_forward_flops": 7e10, "attention_backward_flops": 6e10,
                       "copy_bytes": 1e10, "peak_flops": 1e11}}], "local": {"latency": 1e-6, "bandwidth": 1e10}}],
            "network": {"latency": 1e-5, "bandwidth": 1e9}}
        sixteen = self.job(workers={"min": 16, "max": 16}, input={"seed": 1, "tokens": 65537})
        self.assertEqual(client.plan(sixteen, cluster=cluster).mesh.ranks, 16)
        with self.assertRaises(seqpar.InfeasibleError):
            client.plan(self.job(input={"seed": 2, "tokens": 50_000_000}, workers={"min": 1, "max": 1}), cluster=cluster)

    def test_nodes_and_logs(self):
        client = self.client()
        (node,) = client.nodes()
        self.assertEqual((node.name, node.state, len(node.devices)), ("node-a", seqpar.NodeState.READY, 4))
        self.assertTrue(client.drain("node-a").drained)
        self.assertEqual(client.node("node-a").state, seqpar.NodeState.DRAINING)
        self.assertFalse(client.drain("node-a", undo=True).drained)
        done = client.run(self.job())
        self.assertEqual([log.rank for log in client.logs(done)], [0, 1, 2, 3])
        self.assertEqual([log.rank for log in client.logs(done, rank=2)], [2])
        with self.assertRaises(ValueError):
            client.results(done)  # it writes none
        for call in (client.get, client.wait, client.cancel, client.logs):
            with self.assertRaises(seqpar.NotFoundError):
                call("j-0000000000000000")
        with self.assertRaises(seqpar.NotFoundError):
            client.node("node-z")


class Examples(Clients, ClusterTest):
    def run_example(self, name, *args):
        done = subprocess.run([sys.executable, EXAMPLES / name, *map(str, args)], capture_output=True, text=True,
                              timeout=scaled(90), env={**os.environ, "SEQPAR_SERVER": self.server})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_each_runs_and_says_how(self):
        out = self.run_example("run_job.py", "--tokens", 300)
        self.assertIn("hidden_states (1, 300, 64) float32", out)
        out = self.run_example("which_mesh.py", self.write_job(), 500, 1000, "--cluster",
                               EXAMPLES.parents[2] / "examples" / "cluster-4-cpu-slots.yaml", "--explain")
        self.assertEqual([line.split()[0] for line in out.splitlines() if line.startswith(" ")], ["500", "1000"])
        self.assertIn("candidates are feasible", out)
        self.assertIn("  waits for 99 devices", self.run_example("which_mesh.py", self.write_job(workers={"min": 99, "max": 99}), 500))
        for path in EXAMPLES.glob("*.py"):
            self.assertIn("examples:", self.run_example(path.name, "--help"))


class Nobody(unittest.TestCase):
    def test_a_coordinator_that_is_not_there(self):
        with seqpar.Client("127.0.0.1:1", retry=0.5, timeout=scaled(20)) as client:
            begin = time.monotonic()
            with self.assertRaises(seqpar.UnavailableError):
                client.get("j-1")
            with self.assertRaises(seqpar.UnavailableError) as caught:
                client.submit({"name": "a"}, request_id="mine")
            self.assertEqual(caught.exception.metadata["request_id"], "mine")
            with self.assertRaises(seqpar.UnavailableError):
                client.wait("j-1", reconnect=0.5)
            self.assertLess(time.monotonic() - begin, scaled(20))


class Restarts(Clients, Held):
    lease = "30s"

    def test_wait_goes_on_when_the_coordinator_is_back(self):
        client = self.client()
        with self.held("executor", "execute"):
            job = self.held_job("executor", "execute")
            seen = []
            join = self.in_thread(lambda: client.wait(job, progress=seen.append))
            wait_for(lambda: seen, "the first event")
            self.coordinator.kill()
            self.start_coordinator()
            self.wait_ready("node-a")
            self.release("executor", "execute")
            done = join()
            self.assertEqual((done.state, len(done.attempts)), (seqpar.JobState.SUCCEEDED, 1))
            revisions = [s.revision for s in seen]
            self.assertEqual(revisions, sorted(set(revisions)))
            self.assertIn("hidden_states", client.results(done))

    def test_a_submit_that_met_a_restart_started_one_job(self):
        client = self.client(retry=scaled(60))
        with self.held("coordinator", "submit"):
            job = json.loads(self.job_file(name="once").read_text())
            join = self.in_thread(lambda: client.submit(job))
            self.wait_coordinator_held("submit", "once")
            self.coordinator.kill()
            self.release("coordinator", "submit")
            self.start_coordinator()
            self.wait_ready("node-a")
            submitted = join()
            self.assertEqual([j.id for j in client.list()], [submitted.id])
            client.wait(submitted)


if __name__ == "__main__":
    unittest.main()
