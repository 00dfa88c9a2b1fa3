"""The compose files, plain and with tls.yaml on top: what they mount and publish, and that the binaries take what they say.

No docker here: the two rules by which compose lays one file over another are written down below, folders and addresses are
replaced, and the processes are started as the services would be.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests/deploy"), str(ROOT / "tests/e2e")]
import monitoring  # noqa: E402

monitoring.need("yaml")

import yaml  # noqa: E402

from certificates import Authority, Tokens  # noqa: E402
from harness import BIN, environment, scaled, wait_for  # noqa: E402

FOLDER = ROOT / "deploy/compose"


class Override(list):
    pass


yaml.SafeLoader.add_constructor("!override", lambda loader, node: Override(loader.construct_sequence(node, deep=True)))


def services(*files, **variables):
    """The services of the files laid over one another, with the variables' values in place."""
    def value_of(match):
        name, sign, more = match[1], match[2], match[3]
        if variables.get(name):
            return variables[name]
        if sign == "?":
            raise KeyError(f"{name}: {more}")
        return more or ""

    merged = {}
    for file in files:
        text = (FOLDER / file).read_text()
        text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        text = re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", value_of, text)
        for name, over in yaml.safe_load(text)["services"].items():
            service = merged.setdefault(name, {})
            for key, value in over.items():
                # https://docs.docker.com/reference/compose-file/merge/: lists are joined, but for commands.
                if isinstance(value, list) and key != "command" and not isinstance(value, Override):
                    service[key] = service.get(key, []) + value
                else:
                    service[key] = value
    return merged


class Compose(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-compose-"))
        self.addCleanup(shutil.rmtree, self.dir, True)
        for folder in ("data", "tls/coordinator", "tls/worker"):
            (self.dir / folder).mkdir(parents=True)

    def plain(self):
        return services("compose.yaml", SEQPAR_DATA=f"{self.dir}/data")

    def secured(self, **more):
        return services("compose.yaml", "tls.yaml", SEQPAR_DATA=f"{self.dir}/data", SEQPAR_TLS_DIR=f"{self.dir}/tls",
                        SEQPAR_SLOTS="1", **more)

    def test_plain_is_on_the_loopback_alone(self):
        for name, service in self.plain().items():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name} publishes {port}")
        self.assertIn("--allow-insecure", self.plain()["coordinator"]["command"])

    def test_tls_changes_what_it_must_and_nothing_else(self):
        plain, secured = self.plain(), self.secured()
        about = ("--tls-", "--tokens", "--allow-insecure", "--cpu-slots")
        for name in ("coordinator", "worker"):
            with self.subTest(name):
                rest = [[a for a in s[name]["command"] if not a.startswith(about)] for s in (plain, secured)]
                self.assertEqual(rest[0], rest[1])
                self.assertEqual({k for k in secured[name] if secured[name][k] != plain[name][k]} - {"command", "volumes"},
                                 set())
                self.assertEqual(secured[name]["volumes"][:-1], plain[name]["volumes"])
                # A folder, so that renaming counts; its own, so that no one has the other's key.
                self.assertEqual(secured[name]["volumes"][-1], f"{self.dir}/tls/{name}:/etc/seqpar/tls:ro")
        self.assertNotIn("--allow-insecure", secured["coordinator"]["command"])
        self.assertEqual(self.secured(SEQPAR_LISTEN="0.0.0.0")["coordinator"]["ports"], ["0.0.0.0:7700:7700"])
        with self.assertRaisesRegex(KeyError, "SEQPAR_TLS_DIR"):
            services("compose.yaml", "tls.yaml")

    def test_tenants_on_top_of_either(self):
        for files in (("compose.yaml",), ("compose.yaml", "tls.yaml")):
            variables = {"SEQPAR_DATA": f"{self.dir}/data", "SEQPAR_TLS_DIR": f"{self.dir}/tls"}
            before = services(*files, **variables)
            after = services(*files, "tenants.yaml", SEQPAR_TENANTS_DIR=f"{self.dir}/tenants", **variables)
            self.assertEqual(after["worker"], before["worker"])
            self.assertEqual(after["coordinator"]["command"], before["coordinator"]["command"])
            self.assertEqual(after["coordinator"]["volumes"], before["coordinator"]["volumes"] +
                             [f"{self.dir}/tenants:/etc/seqpar/tenants:ro"])
        with self.assertRaisesRegex(KeyError, "SEQPAR_TENANTS_DIR"):
            services("compose.yaml", "tenants.yaml", **variables)

    def test_tenants_are_held_to_their_file(self):
        (self.dir / "tenants").mkdir()
        (self.dir / "tenants/tenants").write_text("tenant=* queued_jobs=1\n")
        service = services("compose.yaml", "tenants.yaml", SEQPAR_DATA=f"{self.dir}/data",
                           SEQPAR_TENANTS_DIR=f"{self.dir}/tenants")["coordinator"]
        service["environment"] = {k: self.folder(v, service) for k, v in service["environment"].items()}
        _, server = self.start("coordinator", service)
        first, second = self.submit("--server", server), self.submit("--server", server)
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("TENANT_LIMIT", second.stdout + second.stderr)

    def folder(self, path, service):
        """Where a path of the container is here."""
        for volume in service["volumes"]:
            source, target = volume.split(":")[:2]
            if path == target or path.startswith(target + "/"):
                return path.replace(target, source if source.startswith("/") else f"{self.dir}/{source}", 1)
        raise AssertionError(f"{path} is in no volume")

    def start(self, name, service, server=None):
        state = self.dir / name
        state.mkdir(exist_ok=True)
        arguments = [f"--metrics-port-file={state}/metrics", f"--state-dir={state}"]
        arguments += [f"--port-file={state}/port"] if name == "coordinator" else []
        for argument in service["command"]:
            flag, _, value = argument.partition("=")
            if flag in ("--listen", "--metrics-listen"):
                value = "127.0.0.1:0"
            elif flag == "--coordinator":
                self.assertEqual(value, "coordinator:7700")
                value = server
            elif flag == "--data-interface":
                value = "lo"
            elif flag == "--data-root":
                root, _, path = value.partition("=")
                value = f"{root}={self.folder(path, service)}"
            elif value.startswith("/"):
                value = self.folder(value, service)
            arguments.append(f"{flag}={value}" if value else flag)
        if name == "worker" and any(a.startswith("--tls-ca") for a in arguments):
            arguments.append("--tls-server-name=coordinator")  # an address has no name
        log = self.dir / f"{name}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen([BIN / f"seqpar-{name}", *arguments], stdout=out, stderr=subprocess.STDOUT,
                                       env=environment() | {k: str(v) for k, v in service.get("environment", {}).items()})
        self.addCleanup(process.wait, scaled(60))
        self.addCleanup(process.kill)

        def bound(file):
            self.assertIsNone(process.poll(), log.read_text())
            return (state / file).exists() and (state / file).read_text().strip()
        files = ("metrics", "port") if name == "coordinator" else ("metrics",)
        return [wait_for(lambda: bound(file), f"{name}'s {file}") for file in files]

    def healthy(self, service, metrics):
        test = service["healthcheck"]["test"]
        self.assertEqual(test[0], "CMD")
        self.assertEqual(test[-1].count("/127.0.0.1/7701"), 1)
        command = [*test[1:-1], test[-1].replace("/127.0.0.1/7701", "/" + metrics.replace(":", "/"))]
        return subprocess.run(command, capture_output=True, timeout=scaled(10)).returncode == 0

    def run_job(self, *flags):
        return self.submit(*flags, more=("--wait", "--wait-timeout", str(scaled(120))))

    def submit(self, *flags, more=()):
        job = self.dir / "job.yaml"
        job.write_text("config: {hidden_size: 32, num_attention_heads: 4, intermediate_size: 48, num_hidden_layers: 1}\n"
                       "weights: {seed: 1}\ninput: {seed: 2, tokens: 100}\nverify: {rows: 2}\n")
        return subprocess.run([BIN / "seqpar", "-o", "json", *flags, "submit", "-f", job, *more],
                              capture_output=True, text=True, env=environment(), timeout=scaled(180))

    def test_a_job_over_tls(self):
        secured = self.secured()
        made = self.dir / "made"
        made.mkdir()
        authority, tokens = Authority(made), Tokens(made)
        token = tokens.add("ann", role="submitter", tenant="search")
        for name, names in (("coordinator", "DNS:coordinator,DNS:localhost"), ("worker", "URI:seqpar://node/worker")):
            certificate, key = authority.issue(name, names)
            for file, source in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority.cert)):
                shutil.copy(source, self.dir / "tls" / name / file)
        shutil.copy(tokens.file, self.dir / "tls/coordinator/tokens")
        metrics, server = self.start("coordinator", secured["coordinator"])
        self.assertTrue(self.healthy(secured["coordinator"], metrics))
        self.assertFalse(self.healthy(secured["coordinator"], server))  # answers, and not so
        self.start("worker", secured["worker"], server)
        flags = ("--server", server.replace("127.0.0.1", "localhost"), "--tls-ca", authority.cert)
        done = self.run_job(*flags, "--token-file", token)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.run_job(*flags).returncode, 8)

    def test_health_in_the_clear(self):
        plain = self.plain()
        metrics, _ = self.start("coordinator", plain["coordinator"])
        self.assertTrue(self.healthy(plain["coordinator"], metrics))


if __name__ == "__main__":
    unittest.main(verbosity=2)
