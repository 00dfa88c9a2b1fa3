"""The systemd units: systemd's own checks, and that the binaries take what the units tell them."""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "e2e"))
from certificates import Authority, Tokens  # noqa: E402

BIN = pathlib.Path(os.environ["SEQPAR_BIN"])
FOLDER = pathlib.Path(__file__).resolve().parents[3] / "deploy/systemd"
UNITS = ("coordinator", "worker")


def settings(unit):
    """{key: [values in order]} of the unit's [Service] and other sections."""
    found = {}
    for line in (FOLDER / f"seqpar-{unit}.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


class Units(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-units-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def analyze(self, *args):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("no systemd-analyze")
        return subprocess.run(["systemd-analyze", *map(str, args)], capture_output=True, text=True, timeout=60)

    def copies(self):
        """The units with what this machine has: the built binaries, and a user that exists."""
        for unit in UNITS:
            text = (FOLDER / f"seqpar-{unit}.service").read_text()
            text = text.replace("ExecStart=", f"ExecStart={BIN}/").replace("=seqpar\n", "=daemon\n")
            (self.dir / f"seqpar-{unit}.service").write_text(text)
        return [self.dir / f"seqpar-{unit}.service" for unit in UNITS]

    def test_systemd_finds_no_fault(self):
        for unit in self.copies():
            with self.subTest(unit.name):
                done = self.analyze("verify", "--recursive-errors=no", unit)
                self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_systemd_finds_a_fault_where_there_is_one(self):
        unit = self.copies()[0]
        unit.write_text(unit.read_text().replace("Type=notify", "Type=notifi").replace("WatchdogSec", "WatchdogSecs"))
        done = self.analyze("verify", "--recursive-errors=no", unit)
        self.assertIn("notifi", done.stdout + done.stderr)
        self.assertIn("WatchdogSecs", done.stdout + done.stderr)

    def test_the_user_has_the_number_that_it_has_in_images(self):
        """What one node writes another one reads, over a file system that knows numbers only."""
        if shutil.which("systemd-sysusers") is None:
            self.skipTest("no systemd-sysusers")
        (self.dir / "etc").mkdir()
        done = subprocess.run(["systemd-sysusers", f"--root={self.dir}", FOLDER / "seqpar.conf"], capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        name, _, user, group, _, home, _ = (self.dir / "etc/passwd").read_text().strip().split(":")
        dockerfile = (FOLDER.parents[1] / "docker/Dockerfile").read_text()
        self.assertIn(f"echo 'seqpar:x:{user}:{group}:seqpar:{home}:", dockerfile)
        self.assertEqual({got for unit in UNITS for got in settings(unit)["User"] + settings(unit)["Group"]}, {name})

    def test_exposure(self):
        for unit, most in zip(self.copies(), (20, 45)):  # of 100 tenths
            with self.subTest(unit.name):
                done = self.analyze("security", "--offline=yes", f"--threshold={most}", unit)
                self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr)

    def test_what_they_promise(self):
        for unit in UNITS:
            got = settings(unit)
            with self.subTest(unit):
                self.assertEqual(got["Type"], ["notify"])
                self.assertGreater(int(got["WatchdogSec"][0]), 0)
                self.assertEqual(got["KillMode"], ["mixed"])
                self.assertGreaterEqual(int(got["LimitNOFILE"][0]), 65536)
                self.assertEqual(got["RestartPreventExitStatus"], ["2"])
                # What the file says must win.
                keys = [line.partition("=")[0] for line in
                        (FOLDER / f"seqpar-{unit}.service").read_text().splitlines()]
                self.assertGreater(keys.index("EnvironmentFile"), max(i for i, k in enumerate(keys)
                                                                       if k == "Environment"))
        worker = settings("worker")
        self.assertEqual(worker["LimitMEMLOCK"], ["infinity"])
        self.assertEqual(worker["OOMPolicy"], ["continue"])
        drain = [v for v in worker["Environment"] if "DRAIN" in v][0].rpartition("=")[2]
        self.assertEqual(int(worker["TimeoutStopSec"][0]), int(drain) + 30)
        for closes_gpus in ("PrivateDevices", "ProtectClock", "DevicePolicy", "DeviceAllow", "MemoryDenyWriteExecute",
                            "ProcSubset", "PrivateUsers"):
            self.assertNotIn(closes_gpus, worker)

    def variables(self, unit, got, *more):
        """The unit's environment, with those of UNIT-MORE.env; folders and addresses are this machine's."""
        data = self.dir / "data"
        data.mkdir(exist_ok=True)
        prefix = f"SEQPAR_{unit.upper()}_"
        helped = subprocess.run([BIN / got["ExecStart"][0], "--help"], capture_output=True, text=True).stdout
        lines = list(got["Environment"])
        for file in more:
            text = (FOLDER / f"{unit}-{file}.env").read_text()
            lines += [line for line in text.splitlines() if line and not line.startswith("#")]
        found = {}
        for setting in lines:
            name, _, value = setting.partition("=")
            flag = "--" + name.removeprefix(prefix).lower().replace("_", "-")
            self.assertIn(flag, re.findall(r"--[a-z-]+", helped), f"{name} sets no flag")
            found[name] = value.replace("/var/lib/seqpar", str(self.dir)).replace("/srv/seqpar", str(data)).replace(
                "/etc/seqpar", str(self.dir))
        return found

    def start(self, unit, got, environment):
        """(process, manager): started as the unit says; `manager` hears what it tells systemd."""
        sanitizers = {name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")}
        environment = {"PATH": f"{BIN}:/usr/bin:/bin", "NOTIFY_SOCKET": str(self.dir / f"{unit}.notify"), **sanitizers,
                       **environment}
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(environment["NOTIFY_SOCKET"])
        manager.settimeout(120)
        with open(self.dir / f"{unit}.log", "wb") as log:
            process = subprocess.Popen(got["ExecStart"], env=environment, stderr=log, stdout=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, manager

    def test_the_binaries_start_as_the_units_say(self):
        """With the units' command and environment, folders and addresses replaced; ready and stopped as for systemd."""
        for unit in UNITS:
            with self.subTest(unit):
                got = settings(unit)
                process, manager = self.start(unit, got, {**self.variables(unit, got),
                                                          "SEQPAR_COORDINATOR_LISTEN": "127.0.0.1:0",
                                                          "SEQPAR_SERVER": "127.0.0.1:1"})
                self.assertEqual(manager.recv(100), b"READY=1")
                begin = time.monotonic()
                process.send_signal(signal.SIGTERM)
                self.assertEqual(manager.recv(100), b"STOPPING=1")
                self.assertEqual(process.wait(int(got["TimeoutStopSec"][0])), 0)
                print(f"    {unit} stopped in {time.monotonic() - begin:.1f} s", flush=True)

    def test_and_as_the_files_for_tls_say(self):
        """Both at once: the worker attaches, its certificate names the host."""
        (self.dir / "tls").mkdir()
        authority, tokens = Authority(self.dir / "tls"), Tokens(self.dir / "tls")
        tokens.add("ann", role="viewer", tenant="search")
        authority.issue("coordinator", "DNS:localhost")
        authority.issue("node", f"URI:seqpar://node/{socket.gethostname()}")
        (self.dir / "coordinator").mkdir()  # StateDirectory=
        got = settings("coordinator")
        shutil.copy(FOLDER.parents[1] / "examples/tenants", self.dir)
        variables = self.variables("coordinator", got, "tls", "tenants")
        self.assertEqual(variables["SEQPAR_COORDINATOR_TENANTS"], str(self.dir / "tenants"))
        self.assertTrue(variables["SEQPAR_COORDINATOR_LISTEN"].startswith("0.0.0.0:"))
        port = self.dir / "port"
        process, manager = self.start("coordinator", got, {**variables, "SEQPAR_COORDINATOR_LISTEN": "0.0.0.0:0",
                                                           "SEQPAR_COORDINATOR_METRICS_LISTEN": "off",
                                                           "SEQPAR_COORDINATOR_PORT_FILE": str(port)})
        self.assertEqual(manager.recv(100), b"READY=1", (self.dir / "coordinator.log").read_text())
        got = settings("worker")
        server = "localhost:" + port.read_text().strip().rpartition(":")[2]
        worker, manager = self.start("worker", got, {**self.variables("worker", got, "tls"),
                                                     "SEQPAR_WORKER_COORDINATOR": server,
                                                     "SEQPAR_WORKER_METRICS_LISTEN": "off"})
        self.assertEqual(manager.recv(100), b"READY=1", (self.dir / "worker.log").read_text())
        audit = self.dir / "coordinator/audit.jsonl"
        end = time.monotonic() + 60
        while f"seqpar://node/{socket.gethostname()}" not in audit.read_text():  # the change that attaching is
            self.assertLess(time.monotonic(), end, (self.dir / "worker.log").read_text())
            time.sleep(0.05)
        for unit, one in (("worker", worker), ("coordinator", process)):
            one.send_signal(signal.SIGTERM)
            self.assertEqual(one.wait(60), 0, (self.dir / f"{unit}.log").read_text())


if __name__ == "__main__":
    unittest.main()
