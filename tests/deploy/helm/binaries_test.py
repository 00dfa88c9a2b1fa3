"""What the chart renders, tried on the real binaries: commands, environments, probes, TLS, and the job of `helm test`.

Nothing but folders, addresses and the network interface is replaced: those of a pod are not here. Secrets are folders as the
kubelet makes them, with certificates as the rendered objects ask for them.
"""
import json
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from chart import ChartTest, main, merge

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "e2e"))
from certificates import Authority, Tokens  # noqa: E402
from harness import BIN, environment, scaled, wait_for  # noqa: E402

EVERY_FLAG = {"coordinator": {"flags": {"heartbeat": "500ms", "lease": "10s", "forget-nodes": "24h",
                                        "bootstrap-timeout": "30s", "no-progress-timeout": "2m", "step-timeout": "20s",
                                        "checkpoint-interval": "90s", "replace-slow-ranks": 2.5, "measure-links": "1m",
                                        "max-attempts": 2, "max-jobs": 1000000,
                                        "keep-jobs": 0, "keep-days": 365, "log-level": "debug"}},
              "tenants": {"*": {"queuedJobs": 1, "outputBytes": "2Ti"}, "ops": {"queuedJobs": 100, "runningJobs": 2, "devices": 16}},
              "worker": {"flags": {"log-level": "debug"}, "labels": {"pool": "a"}, "drainSeconds": 5}}
POD = {"metadata.name": "r-seqpar-worker-0", "spec.nodeName": "machine-7"}
TOKENS, PROBE = {"existingSecret": "tok"}, {"secret": "probe"}
TLS = {
    "secret": {"tls": {"mode": "secret"}, "tokens": TOKENS, "helmTest": PROBE},
    "secret, shared": {"tls": {"mode": "secret", "workerCertificates": "shared", "caSecret": "ca", "requireClientCert": True},
                       "tokens": TOKENS, "helmTest": PROBE},
    "certManager": {"tls": {"mode": "certManager", "requireClientCert": True}, "tokens": TOKENS, "helmTest": PROBE},
    "certManager, shared": {"tls": {"mode": "certManager", "workerCertificates": "shared"}, "tokens": TOKENS,
                            "helmTest": PROBE},
}


class Volumes:
    """Folders for a pod's secrets and certificates, laid out and replaced as the kubelet does: links to a hidden folder."""

    def __init__(self, folder):
        self.folder = folder
        self.made = folder / "made"
        self.made.mkdir()
        self.ca = Authority(self.made)
        self.tokens = Tokens(self.made)
        self.tokens.add("probe", role="submitter", tenant="ops")
        self.turn = 0

    def write(self, name, files):
        """{file name: what it holds, or the path of that}"""
        self.turn += 1
        volume = self.folder / name
        data = volume / f"..{self.turn}"
        data.mkdir(parents=True)
        for file, source in files.items():
            (data / file).write_bytes(source.encode() if isinstance(source, str) else source.read_bytes())
            (data / file).chmod(0o440)
            if not (volume / file).is_symlink():
                (volume / file).symlink_to(f"..data/{file}")
        (volume / "..new").symlink_to(data.name)
        (volume / "..new").replace(volume / "..data")
        return volume

    def pair(self, name, alternative_names, usages="serverAuth,clientAuth"):
        certificate, key = self.ca.issue(name, alternative_names, usages=usages)
        return {"tls.crt": certificate, "tls.key": key, "ca.crt": self.ca.cert}

    def requested(self, name, dns_names, uris, usages):
        """As cert-manager answers a Certificate, or its csi-driver a volume: no more usages than were asked for."""
        names = [f"DNS:{n}" for n in dns_names] + [f"URI:{u}" for u in uris]
        extended = [u.replace(" auth", "Auth") for u in usages if u.endswith(" auth")]
        return self.pair(name, ",".join(names), ",".join(extended))

    def of(self, volume, secrets, certificates, maps):
        """The folder for a volume of a pod. `secrets`: {name: files} of those that people make; `certificates`: specs;
        `maps`: {name: data} of config maps."""
        if "csi" in volume:
            attributes = {k.rpartition("/")[2]: v for k, v in volume["csi"]["volumeAttributes"].items()}
            uri = attributes["uri-sans"].replace("${POD_NAME}", POD["metadata.name"])
            return self.write(POD["metadata.name"], self.requested("csi", [], [uri], attributes["key-usages"].split(",")))
        if "configMap" in volume:
            return self.write(volume["configMap"]["name"], maps[volume["configMap"]["name"]])
        name = volume["secret"]["secretName"]
        if name in secrets:
            files = secrets[name]()
        else:
            (spec,) = [c for c in certificates if c["secretName"] == name]
            files = self.requested(name, spec.get("dnsNames", []), spec.get("uris", []), spec["usages"])
        only = [item["key"] for item in volume["secret"].get("items", [])] or list(files)
        return self.write(name + "-".join(volume["secret"].get("items", []) and only), {f: files[f] for f in only})


class Binaries(ChartTest):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-chart-"))
        self.addCleanup(shutil.rmtree, self.dir, True)
        (self.dir / "data").mkdir()
        self.server = "127.0.0.1:1"
        self.volumes = None  # with TLS

    def mounts(self, pod, values, example):
        """{mount path: folder here} of the pod's secrets and files."""
        if self.volumes is None:
            self.volumes = Volumes(self.dir)
        node = POD["metadata.name"]
        by_node = lambda: {f"{node}.crt" if k == "tls.crt" else f"{node}.key" if k == "tls.key" else k: v for k, v in
                           self.volumes.pair("node", f"URI:seqpar://node/{node}").items()}
        shared = merge(values, {}).get("tls", {}).get("workerCertificates") == "shared"
        people = {
            "tok": lambda: {"tokens": self.volumes.tokens.file},
            "probe": lambda: {"token": self.volumes.made / "probe.token", **self.volumes.pair("user", "DNS:user")},
            "ca": lambda: {"ca.crt": self.volumes.ca.cert},
        }
        certificates = [m["spec"] for (kind, _), m in self.render(values, example).items() if kind == "Certificate"]
        if not certificates:
            people["r-seqpar-coordinator-tls"] = lambda: self.volumes.pair("coordinator", "DNS:r-seqpar-coordinator")
            people["r-seqpar-worker-tls"] = (
                (lambda: self.volumes.pair("worker", "URI:seqpar://node/*")) if shared else by_node)
        maps = {name: m["data"] for (kind, name), m in self.render(values, example).items() if kind == "ConfigMap"}
        folders = {v["name"]: self.volumes.of(v, people, certificates, maps) for v in pod["volumes"]
                   if not v.keys().isdisjoint(("secret", "csi", "configMap"))}
        return {m["mountPath"]: folders[m["name"]] for m in pod["containers"][0]["volumeMounts"] if m["name"] in folders}

    def variables(self, container):
        return {e["name"]: e["value"] if "value" in e else POD[e["valueFrom"]["fieldRef"]["fieldPath"]]
                for e in container.get("env", [])}

    def placed(self, argument, mounts):
        for path, folder in mounts.items():
            argument = argument.replace(f"={path}/", f"={folder}/")
        self.assertNotIn("=/etc/seqpar/", argument, "is in no volume")
        return argument

    def arguments(self, component, container, mounts):
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
            arguments.append(self.placed(f"{flag}={value}" if value else flag, mounts))
        if component == "worker" and mounts:  # an address has no name
            arguments.append("--tls-server-name=r-seqpar-coordinator")
        return arguments

    def start(self, component, container, mounts=()):
        environ = {**environment(), **self.variables(container)}
        log = self.dir / f"{component}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen([BIN / f"seqpar-{component}", *self.arguments(component, container, dict(mounts))], env=environ,
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
        coordinator_pod, coordinator = self.pod("coordinator", values, example)
        worker_pod, worker = self.pod("worker", values, example)
        mounts = self.mounts(worker_pod, values, example) if values.get("tls") else {}
        # Before there is a coordinator: alive, not ready.
        process, log = self.start("worker", worker, mounts)
        metrics = self.address("worker", "metrics-port", process, log)
        wait_for(lambda: '"message":"worker starts"' in log.read_text(), "the devices to be measured", 120)
        self.assertEqual([self.status(worker, probe, metrics) for probe in
                          ("startupProbe", "livenessProbe", "readinessProbe")], [200, 200, 503])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(scaled(60)), 0)

        process, log = self.start("coordinator", coordinator,
                                  self.mounts(coordinator_pod, values, example))
        self.server = self.address("coordinator", "port", process, log)
        metrics = self.address("coordinator", "metrics-port", process, log)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            self.assertEqual(self.status(coordinator, probe, metrics), 200, probe)
        (self.dir / "worker/metrics-port").unlink()
        process, log = self.start("worker", worker, mounts)
        metrics = self.address("worker", "metrics-port", process, log)
        wait_for(lambda: self.status(worker, "readinessProbe", metrics) == 200, "the worker to be ready", 120)
        self.assertEqual(self.status(worker, "livenessProbe", metrics), 200)
        return process

    def run_helm_test(self, values, example):
        job = self.one("ConfigMap", "r-seqpar-test", values, example)["data"]["job.yaml"]
        pod = self.one("Pod", "r-seqpar-test", values, example)["spec"]
        container = pod["containers"][0]
        (self.dir / "job.yaml").write_text(job)
        _, coordinator = self.pod("coordinator", values, example)
        served = f"r-seqpar-coordinator:{coordinator['ports'][0]['containerPort']}"
        self.assertIn(f"--server={served}", container["args"])
        mounts = self.mounts(pod, values, example) if values.get("tls") else {}
        arguments = [self.placed(a.replace(served, self.server).replace("/job/", f"{self.dir}/"), mounts)
                     for a in container["args"]]
        if mounts:
            arguments.append("--tls-server-name=r-seqpar-coordinator")
        return subprocess.run([BIN / container["command"][0], *arguments], capture_output=True, text=True,
                              env=environment(), timeout=scaled(280))

    def test_the_defaults_with_every_flag_and_helm_test(self):
        worker = self.check_release(EVERY_FLAG, None)
        nodes = subprocess.run([BIN / "seqpar", "--server", self.server, "nodes", "-o", "json"], capture_output=True,
                               text=True, check=True).stdout
        for text in ("r-seqpar-worker-0", "kubernetes_node", "machine-7", "pool"):
            self.assertIn(text, nodes)
        # Two jobs of nobody's tenant, of which one may wait.
        job = {"config": {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "num_hidden_layers": 1},
               "weights": {"seed": 1}, "input": {"seed": 2, "tokens": 9}, "workers": {"min": 9}}
        (self.dir / "waits.yaml").write_text(json.dumps(job))
        submit = [BIN / "seqpar", "--server", self.server, "-o", "json", "submit", "-f", self.dir / "waits.yaml"]
        first, second = [subprocess.run(submit, capture_output=True, text=True, timeout=scaled(60)) for _ in range(2)]
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("TENANT_LIMIT", second.stdout + second.stderr)
        subprocess.run([BIN / "seqpar", "--server", self.server, "cancel", json.loads(first.stdout)["id"]], check=True,
                       capture_output=True, timeout=scaled(60))
        done = self.run_helm_test(EVERY_FLAG, None)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("verif", done.stdout.lower())
        worker.send_signal(signal.SIGTERM)
        self.assertEqual(worker.wait(scaled(60)), 0)

    def test_one_machine(self):
        self.check_release({}, "values-one-machine.yaml")
        done = self.run_helm_test({}, "values-one-machine.yaml")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_tls_in_each_mode(self):
        for name, values in TLS.items():
            with self.subTest(name):
                self.check_release(values, None)
                done = self.run_helm_test(values, None)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                # In the clear, or without the token, nobody gets anything.
                for flags in ((), ("--tls-ca", self.volumes.ca.cert, "--tls-server-name", "r-seqpar-coordinator")):
                    denied = subprocess.run([BIN / "seqpar", "--server", self.server, "--timeout", "5", *flags, "nodes"],
                                            capture_output=True, text=True, env=environment(), timeout=scaled(60))
                    self.assertIn(denied.returncode, (5, 8), denied.stderr)
            self.doCleanups()
            self.setUp()

    def test_secrets_that_change_count_without_a_restart(self):
        """Whole folders are mounted: the kubelet's new link is seen."""
        values = TLS["secret"]
        pod, coordinator = self.pod("coordinator", values)
        mounts = self.mounts(pod, values, None)
        process, log = self.start("coordinator", coordinator, mounts)
        self.server = self.address("coordinator", "port", process, log)
        volumes = self.volumes

        def shown():
            context = ssl.create_default_context(cafile=volumes.ca.cert)
            context.set_alpn_protocols(["h2"])
            host, port = self.server.split(":")
            with socket.create_connection((host, int(port)), timeout=scaled(10)) as raw:
                with context.wrap_socket(raw, server_hostname="r-seqpar-coordinator") as tls:
                    return tls.getpeercert()["serialNumber"]
        before = shown()
        volumes.write("r-seqpar-coordinator-tls", volumes.pair("coordinator", "DNS:r-seqpar-coordinator"))
        wait_for(lambda: shown() != before, "the new certificate")
        token = volumes.tokens.add("later", role="viewer", tenant="ops")

        def code():
            return subprocess.run([BIN / "seqpar", "--server", self.server, "--tls-ca", volumes.ca.cert, "--tls-server-name",
                                   "r-seqpar-coordinator", "--token-file", token, "list"], capture_output=True,
                                  env=environment(), timeout=scaled(60)).returncode
        self.assertEqual(code(), 8)
        volumes.write("tok", {"tokens": volumes.tokens.file})
        wait_for(lambda: code() == 0, "the new token")
        self.assertIsNone(process.poll())

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
        for example in ("values-gpu-cluster.yaml", "values-rdma-cluster.yaml"):
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
