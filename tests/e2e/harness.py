"""Real processes for the end-to-end tests: a coordinator and workers on free ports, the command line, and their deaths.

Everything lives in one temporary folder and ends with the test, also when it fails. A test that ends leaves no job, no
executor and no staging file behind: that is asserted. Waits are bounded and poll a condition; nothing sleeps for a
fixed time. Seconds are those of an ordinary build: a sanitizer's is slower, and SEQPAR_TEST_TIME_FACTOR (set by the
build) says by how much every wait grows.
"""
import array
import json
import math
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from calibrations import Calibrations

BIN = pathlib.Path(os.environ.get("SEQPAR_BIN", pathlib.Path(__file__).resolve().parents[2] / "build/bin"))
CALIBRATIONS = Calibrations(BIN)
TIME_FACTOR = int(os.environ.get("SEQPAR_TEST_TIME_FACTOR", 1))
ENDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


def scaled(seconds):
    return seconds * TIME_FACTOR


def wait_for(condition, what, seconds=60):
    """Returns the first true value of condition(); fails the test after `seconds`, scaled."""
    seconds = scaled(seconds)
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)


def children_of(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += [int(p) for p in f.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Process:
    def __init__(self, args, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=subprocess.STDOUT, env=environment() | (env or {}))
        self.pid = self.popen.pid

    def kill(self, sig=signal.SIGKILL, wait=True):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.send_signal(sig)
        return self.popen.wait(scaled(30)) if wait else None


def environment():
    env = {k: v for k, v in os.environ.items() if not k.startswith("SEQPAR_") or k == "SEQPAR_BIN"}
    env["UCX_TLS"] = os.environ.get("UCX_TLS", "posix,cma,self,tcp")
    return env


class Scrape:
    """What /metrics said: `types` by metric, and `series` as [(name, {label: value}, number)]."""
    LABEL = re.compile(r'([a-zA-Z_]+)="((?:[^"\\\\]|\\\\.)*)"')

    def __init__(self, text):
        self.types, self.series = {}, []
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.types[name] = kind
            elif line and not line.startswith("#"):
                series, number = line.rsplit(" ", 1)
                name, _, labels = series.partition("{")
                self.series.append((name, dict(self.LABEL.findall(labels)), float(number)))

    def find(self, name, **labels):
        """[(labels, number)] of the series of that name which have at least these labels."""
        return [(have, number) for n, have, number in self.series
                if n == name and all(have.get(k) == v for k, v in labels.items())]

    def sum(self, name, **labels):
        return sum(number for _, number in self.find(name, **labels))


class Cluster:
    """The processes of one cluster in the folder `dir`, with the data root `data`, and its command line. What of it
    differs elsewhere (more machines than this one, other flags) is a method or an attribute of its own."""
    slots = 4
    lease = "4s"
    step_timeout = "60s"  # executors that a test holds stand still
    metrics = False  # whether its processes serve metrics, on free ports
    measure_links = "off"  # --measure-links of the coordinator

    def __init__(self, folder):
        self.lay_out(folder)

    def lay_out(self, folder):
        self.dir = pathlib.Path(folder)
        self.data = self.dir / "data"
        self.data.mkdir(exist_ok=True)
        self.processes = []
        self._slots = {}  # of each worker, by its state folder
        self.port = None
        self.coordinator = None
        self.server = None

    # --- processes ---

    def coordinator_environment(self):
        """Variables of the coordinator beside those of this process."""
        return {}

    def coordinator_command(self, *more):
        return [BIN / "seqpar-coordinator", "--listen", f"127.0.0.1:{self.port or 0}", "--port-file", self.dir / "port",
                "--state-dir", self.dir / "state", "--data-root", f"data={self.data}", "--heartbeat", "200ms", "--lease",
                self.lease, "--step-timeout", self.step_timeout, *self.metrics_flags("coordinator"), *more]

    def start_coordinator(self, *more):
        port_file = self.dir / "port"
        port_file.unlink(missing_ok=True)
        environment = {"SEQPAR_COORDINATOR_MEASURE_LINKS": self.measure_links} | self.coordinator_environment()
        process = Process(self.coordinator_command(*more), self.dir / "coordinator.log", environment)
        self.processes.append(process)
        self.coordinator = process

        def bound():
            if process.popen.poll() is not None:
                raise AssertionError(f"the coordinator ended: {log_tail(process.log)}")
            return port_file.exists() and port_file.read_text().strip()
        address = wait_for(bound, "the coordinator's port", 20)
        self.port = int(address.rsplit(":", 1)[-1])
        self.server = f"127.0.0.1:{self.port}"
        return process

    def worker_command(self, name, *more, slots=None):
        return [BIN / "seqpar-worker", "--coordinator", self.server, "--node-name", name, "--cpu-slots",
                slots or self.slots, "--threads-per-slot", 1, "--memory-per-slot", "1GiB", "--data-root",
                f"data={self.data}", "--state-dir", self.dir / f"worker-{name}", *self.metrics_flags(name), *more]

    def start_worker(self, name, *more, slots=None, env=None, under=()):
        """`under`: a command that the worker is started by, in its own place (exec)."""
        state_dir, slots = self.dir / f"worker-{name}", slots or self.slots
        CALIBRATIONS.lend(slots, state_dir)
        self._slots[state_dir] = slots
        process = Process([*under, *self.worker_command(name, *more, slots=slots)], self.dir / f"{name}.log", env)
        self.processes.append(process)
        return process

    def metrics_flags(self, name):
        if not self.metrics:
            return ["--metrics-listen", "off"]
        file = self.dir / f"{name}.metrics"
        file.unlink(missing_ok=True)
        return ["--metrics-listen", "127.0.0.1:0", "--metrics-port-file", file]

    def http(self, name, path):
        """(status code, body) of a process that was started under that name."""
        file = self.dir / f"{name}.metrics"
        address = wait_for(lambda: file.exists() and file.read_text().strip(), f"the metrics port of {name}", 20)
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=scaled(20)) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def scrape(self, name):
        """The Scrape of a process that was started under that name."""
        code, text = self.http(name, "/metrics")
        if code != 200:
            raise AssertionError(f"{name}: {code}: {text}")
        return Scrape(text)

    def node_states(self):
        """{name: "READY"}; empty where the coordinator does not answer."""
        nodes = self.cli("nodes", check=False) or {}
        return {n["name"]: n["state"].replace("NODE_STATE_", "") for n in nodes.get("nodes", [])}

    def wait_node(self, name, state, seconds=60):
        wait_for(lambda: self.node_states().get(name) == state, f"node {name} to be {state}", seconds)

    def wait_ready(self, *names, seconds=60):
        for name in names:
            self.wait_node(name, "READY", seconds)

    def executors(self, worker):
        """Executor processes of a daemon, by pid."""
        found = []
        for pid in children_of(worker.pid):
            try:
                command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"executor" in command:
                found.append(pid)
        return found

    # --- the command line ---

    def run_cli(self, *args, timeout=120):
        """(exit code, stdout, stderr)"""
        done = subprocess.run([str(BIN / "seqpar"), "--server", self.server, "-o", "json", *map(str, args)],
                              capture_output=True, text=True, timeout=scaled(timeout), env=environment(), cwd=self.data)
        return done.returncode, done.stdout, done.stderr

    def cli(self, *args, check=True, timeout=120):
        """The answer as JSON; None where it failed and check is off."""
        code, out, err = self.run_cli(*args, timeout=timeout)
        if code != 0:
            if check:
                raise AssertionError(f"seqpar {' '.join(map(str, args))}: exit code {code}\n{out}\n{err}")
            return None
        return json.loads(out) if out.strip() else {}

    def write_job(self, file="job.yaml", **changes):
        """A small job in a file of that name; keyword arguments replace top-level fields."""
        job = {
            "name": "test",
            "config": {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
                       "intermediate_size": 48, "num_hidden_layers": 2, "rope_theta": 10000.0},
            "weights": {"seed": 1},
            "input": {"seed": 2, "tokens": 131},
            "workers": {"min": 4, "max": 4},
        }
        job.update(changes)
        path = self.data / file
        path.write_text(json.dumps({k: v for k, v in job.items() if v is not None}))
        return path

    def submit(self, path, *more):
        return self.cli("submit", "-f", path, *more)["id"]

    def get(self, job):
        return self.cli("get", job)

    def wait_ended(self, job, seconds=90):
        def ended():
            state = self.cli("get", job, check=False)
            return state if state and state["state"] in ENDED else None
        return wait_for(ended, f"job {job} to end", seconds)

    def wait_succeeded(self, job, seconds=90):
        state = self.wait_ended(job, seconds)
        if state["state"] != "JOB_STATE_SUCCEEDED":
            raise AssertionError(f"{state['state']}: {json.dumps(state.get('error'), indent=1)}")
        return state


class ClusterTest(Cluster, unittest.TestCase):
    """One cluster a test. Override slots, lease and so on in the class."""
    autostart = True

    def __init__(self, method="runTest"):
        unittest.TestCase.__init__(self, method)

    def setUp(self):
        self.lay_out(tempfile.mkdtemp(prefix="seqpar-e2e-"))
        self.bad_before = len(self._outcome.result.failures) + len(self._outcome.result.errors)
        self.addCleanup(self._clean)
        if self.autostart:
            self.start_coordinator()
            self.worker = self.start_worker("node-a")
            self.wait_ready("node-a")

    def settle(self):
        """Ends what runs, in order, and asserts that nothing of it is left: no job, no executor, no staging file."""
        for hold in self.dir.glob("hold*"):
            hold.unlink()
        if self.server is None or self.coordinator.popen.poll() is not None:
            return

        def ended():
            live = [j["id"] for j in self.cli("list", "--limit", 1000).get("jobs", []) if j["state"] not in ENDED]
            for job in live:
                self.cli("cancel", job)
            return not live
        wait_for(ended, "every job to end")
        wait_for(lambda: not any(self.executors(p) for p in self.processes), "executors to be gone")
        wait_for(lambda: not self.staged(), "staging files to be gone")

    def staged(self):
        return [p.name for p in self.data.rglob("*") if p.name.endswith(".partial")]

    def _clean(self):
        try:
            self.settle()
        finally:
            self._end_processes()

    def _end_processes(self):
        executors = [c for p in self.processes for c in children_of(p.pid)]
        for process in self.processes:
            process.kill()
        for state_dir, slots in self._slots.items():
            CALIBRATIONS.keep(slots, state_dir)
        try:
            wait_for(lambda: not any(alive(e) for e in executors), "executors to end with their daemon", 15)
        finally:
            if self._failed():
                for log in sorted(self.dir.glob("*.log")):
                    print(f"---- {log.name} (last 60 lines)")
                    print("\n".join(log.read_text(errors="replace").splitlines()[-60:]))
            shutil.rmtree(self.dir, ignore_errors=True)

    def _failed(self):
        """Whether this test failed up to here, so that its logs are worth showing."""
        if sys.exc_info()[0] is not None:
            return True
        result = self._outcome.result
        return len(result.failures) + len(result.errors) > self.bad_before or not self._outcome.success

    def start_cli(self, *args):
        """A command that goes on by itself; ended with the test."""
        process = subprocess.Popen([str(BIN / "seqpar"), "--server", self.server, *map(str, args)], text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=self.data)

        def end():
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        self.addCleanup(end)
        return process


def log_tail(path, lines=20):
    return "\n".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-lines:])


def read_safetensors(path):
    """{name: (dtype, shape, list of floats)}; F32 and BF16."""
    raw = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        data = raw[8 + size + begin:8 + size + end]
        if info["dtype"] == "BF16":
            halves = array.array("H", data)
            wide = array.array("I", (h << 16 for h in halves))
            values = array.array("f", wide.tobytes())
        else:
            values = array.array("f", data)
        tensors[name] = (info["dtype"], info["shape"], values)
    return tensors


def relative_error(got, want):
    top = math.sqrt(sum((a - b) ** 2 for a, b in zip(got, want)))
    return top / (math.sqrt(sum(b * b for b in want)) or 1.0)
