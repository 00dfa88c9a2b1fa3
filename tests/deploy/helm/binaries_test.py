"""What the chart renders, tried on the real binaries: commands, environments, probes, and the job of `helm test`.

Nothing but folders, addresses and the network interface is replaced: those of a pod are not here.
"""
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from chart import EXAMPLES, ChartTest, main

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "e2e"))
from harness import BIN, environment, scaled, wait_for  # noqa: E402

EVERY_FLAG = {"coordinator": {"flags": {"heartbeat": "500ms", "lease": "10s", "bootstrap-timeout": "30s",
                                        "no-progress-timeout": "2m", "max-attempts": 2, "log-level": "debug"}},
              "worker": {"flags": {"log-level": "debug"}, "labels": {"pool": "a"}, "drainSeconds": 5}}
POD = {"metadata.name": "r-seqpar-worker-0", "spec.nodeName": "machine-7"}


class Binaries(ChartTest):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-chart-"))
        self.addCleanup(shutil.rmtree, self.dir, True)
        (self.dir / "data").mkdir()
        self.server = "127.0.0.1:1"

    def variables(self, container):
        return {e["name"]: e["value"] if "value" in e else POD[e["valueFrom"]["fieldRef"]["fieldPath"]]
                for e in container.get("env", [])}

    def arguments(self, component, container):
        """The container's arguments as the kubelet would pass them, with this machine's folders and addresses."""
        state = self.dir / component
        state.mkdir(exist_ok=True)
        arguments = [f"--metrics-port-file={state}/metrics-port"]
        if component == "coordinator":
            arguments.append(f"--port-file={state}/port")
        for argument in container["args"]:
            for name, value in self.variables(container).items():
                argument = argument.replace(f"$({name})", value)
            flag, _, value = argument.partition("=")
            if flag in ("--listen", "--metrics-listen"):
                self.assertTrue(value.startswith("0.0.0.0:"))
                value = "0.0.0.0:0"
            elif flag == "--coordinator":
                value = self.server
            elif flag == "--data-interface":
                value = "lo"
            elif flag == "--state-dir":
                value = str(state)
            elif flag == "--data-root":
                name, _, path = value.partition("=")
                self.assertIn(path, [m["mountPath"] for m in container["volumeMounts"]])
                value = f"{name}={self.dir}/data"
            arguments.append(f"{flag}={value}" if value else flag)
        return arguments

    def start(self, component, container):
        environ = {**environment(), **self.variables(container)}
        log = self.dir / f"{component}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen([BIN / f"seqpar-{component}", *self.arguments(component, container)], env=environ,
                                       stdout=out, stderr=subprocess.STDOUT)
        self.addCleanup(process.wait, scaled(60))
        self.addCleanup(process.kill)
        return process, log

    def address(self, component, file, process, log):
        path = self.dir / component / file

        def bound():
            self.assertIsNone(process.poll(), log.read_text())
            return path.exists() and path.read_text().strip()
        return "127.0.0.1:" + wait_for(bound, f"{component}'s {file}").rpartition(":")[2]

    def status(self, container, probe, address):
        get = container[probe]["httpGet"]
        self.assertIn(get["port"], [p["name"] for p in container["ports"]])
        try:
            with urllib.request.urlopen(f"http://{address}{get['path']}", timeout=scaled(10)) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def check_release(self, values, example):
        _, coordinator = self.pod("coordinator", values, example)
        _, worker = self.pod("worker", values, example)
        # Before there is a coordinator: alive, not ready.
        process, log = self.start("worker", worker)
        metrics = self.address("worker", "metrics-port", process, log)
        wait_for(lambda: '"message":"worker starts"' in log.read_text(), "the devices to be measured", 120)
        self.assertEqual([self.status(worker, probe, metrics) for probe in
                          ("startupProbe", "livenessProbe", "readinessProbe")], [200, 200, 503])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(scaled(60)), 0)

        process, log = self.start("coordinator", coordinator)
        self.server = self.address("coordinator", "port", process, log)
        metrics = self.address("coordinator", "metrics-port", process, log)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            self.assertEqual(self.status(coordinator, probe, metrics), 200, probe)
        (self.dir / "worker/metrics-port").unlink()
        process, log = self.start("worker", worker)
        metrics = self.address("worker", "metrics-port", process, log)
        wait_for(lambda: self.status(worker, "readinessProbe", metrics) == 200, "the worker to be ready", 120)
        self.assertEqual(self.status(worker, "livenessProbe", metrics), 200)
        return process

    def run_helm_test(self, values, example):
        job = self.one("ConfigMap", "r-seqpar-test", values, example)["data"]["job.yaml"]
        container = self.one("Pod", "r-seqpar-test", values, example)["spec"]["containers"][0]
        (self.dir / "job.yaml").write_text(job)
        _, coordinator = self.pod("coordinator", values, example)
        served = f"r-seqpar-coordinator:{coordinator['ports'][0]['containerPort']}"
        self.assertIn(f"--server={served}", container["args"])
        arguments = [a.replace(served, self.server).replace("/job/", f"{self.dir}/") for a in container["args"]]
        return subprocess.run([BIN / container["command"][0], *arguments], capture_output=True, text=True,
                              env=environment(), timeout=scaled(280))

    def test_the_defaults_with_every_flag_and_helm_test(self):
        worker = self.check_release(EVERY_FLAG, None)
        nodes = subprocess.run([BIN / "seqpar", "--server", self.server, "nodes", "-o", "json"], capture_output=True,
                               text=True, check=True).stdout
        for text in ("r-seqpar-worker-0", "kubernetes_node", "machine-7", "pool"):
            self.assertIn(text, nodes)
        done = self.run_helm_test(EVERY_FLAG, None)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("verif", done.stdout.lower())
        worker.send_signal(signal.SIGTERM)
        self.assertEqual(worker.wait(scaled(60)), 0)

    def test_one_machine(self):
        self.check_release({}, "values-one-machine.yaml")
        done = self.run_helm_test({}, "values-one-machine.yaml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_helm_test_fails_where_nothing_computes(self):
        _, coordinator = self.pod("coordinator")
        process, log = self.start("coordinator", coordinator)
        self.server = self.address("coordinator", "port", process, log)
        container = self.one("Pod", "r-seqpar-test")["spec"]["containers"][0]
        container["args"] = [a.replace("--wait-timeout=270", "--wait-timeout=1") for a in container["args"]]
        (self.dir / "job.yaml").write_text(self.one("ConfigMap", "r-seqpar-test")["data"]["job.yaml"])
        arguments = [a.replace("r-seqpar-coordinator:7700", self.server).replace("/job/", f"{self.dir}/")
                     for a in container["args"]]
        done = subprocess.run([BIN / "seqpar", *arguments], capture_output=True, text=True, env=environment(),
                              timeout=scaled(60))
        self.assertNotEqual(done.returncode, 0)

    def test_gpu_workers_are_told_nothing_that_they_do_not_know(self):
        for example in EXAMPLES[2:]:
            with self.subTest(example):
                _, worker = self.pod("worker", {}, example)
                self.assertIn("--devices=cuda", worker["args"])
                process, log = self.start("worker", worker)
                metrics = self.address("worker", "metrics-port", process, log)
                # It ends where there is no GPU, and says so; a flag that it does not know would end it with 2.
                ended = wait_for(lambda: process.poll() is not None and process.returncode or
                                 "worker starts" in log.read_text(), "the GPUs to be looked for", 120)
                if ended is not True:
                    self.assertEqual(ended, 1, log.read_text())
                    self.assertIn("--devices=cuda", log.read_text())
                else:
                    self.assertEqual(self.status(worker, "livenessProbe", metrics), 200)
                _, coordinator = self.pod("coordinator", {}, example)
                process, log = self.start("coordinator", coordinator)
                self.address("coordinator", "port", process, log)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(scaled(30)), 0)
                shutil.rmtree(self.dir / "worker")
                shutil.rmtree(self.dir / "coordinator")


if __name__ == "__main__":
    main()
