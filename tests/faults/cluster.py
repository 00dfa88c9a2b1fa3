"""Three test hosts with a worker each, a coordinator on a fourth, and what can be done to them.

Where namespaces cannot be made everything runs on the loopback of one machine, without the network's faults."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from harness import BIN, Cluster, Process, alive, environment, scaled, wait_for  # noqa: E402
from hosts import Hosts, address_of  # noqa: E402

NODES = ("node-a", "node-b", "node-c")
COORDINATOR = "coordinator"
LEASE_SECONDS = scaled(4)
STEP_SECONDS = scaled(5)
RUN_MARK = "FAULTS_RUN"  # in the environment of all that is started
KEEP_JOBS = 100  # that have ended; the coordinator forgets older ones
# Of the file systems that are filled. The store keeps up to 256 MiB of traces, and 16 MiB in reserve.
DATA_MIB, STATE_MIB = 48, 512


class Member(Process):
    """A coordinator or a worker. `ending`: it is known why it may end; `again`: once it has, another is started."""

    def __init__(self, name, *args):
        super().__init__(*args)
        self.name = name
        self.ending = self.again = self.frozen = False


def start_time(pid):
    """Tells a process from a later one of the same id."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


class FaultCluster(Cluster):
    slots = 2
    lease = f"{LEASE_SECONDS}s"
    step_timeout = f"{STEP_SECONDS}s"

    def __init__(self, folder, isolated, disk=None):
        """`isolated`: this process has namespaces of its own. `disk`: the library whose fsyncs fail and wait."""
        folder = pathlib.Path(folder)
        for name, size in (("data", DATA_MIB), ("state", STATE_MIB)):
            (folder / name).mkdir()
            if isolated:
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", folder / name], check=True)
        for name in ("logs", "watch", "submits", "switches"):
            (folder / name).mkdir()
        super().__init__(folder)
        self.isolated, self.disk = isolated, disk
        self.hosts = Hosts(len(NODES)) if isolated else None
        self.members = {}  # name: the process that goes by it
        self.starts = {}  # name: how many there were
        self.history = open(self.dir / "history.jsonl", "w", buffering=1)
        self.failpoints = None  # the folder of failpoints, where they are on

    def tell(self, what, **fields):
        self.history.write(json.dumps({"t": time.time(), "what": what, **fields}) + "\n")

    # --- processes ---

    def host_of(self, name):
        return 0 if name == COORDINATOR else NODES.index(name) + 1

    def environment_of(self, name):
        env = {RUN_MARK: str(self.dir), "SEQPAR_COORDINATOR_MEASURE_LINKS": self.measure_links}
        if self.hosts:
            env["UCX_TLS"] = "tcp,self"
        if self.disk:
            env |= {"LD_PRELOAD": str(self.disk), "SLOW_DISK": str(self.switch("slow", name)),
                    "FAILING_DISK": str(self.switch("failing", name)),
                    "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
        return env

    def switch(self, what, name):
        """The file that turns a fault of that process on while it exists."""
        return self.dir / "switches" / f"{what}-{name}"

    def command_of(self, name):
        common = ["--log-format", "json", *(["--test-failpoints", self.failpoints] if self.failpoints else [])]
        if name == COORDINATOR:
            command = self.coordinator_command("--bootstrap-timeout", f"{scaled(8)}s", "--no-progress-timeout",
                                               f"{scaled(8)}s", "--checkpoint-interval", "30ms", "--replace-slow-ranks", 2,
                                               "--keep-jobs", KEEP_JOBS, *common)
            if self.hosts:
                command[command.index("--listen") + 1] = f"0.0.0.0:{self.port or 0}"
                command.append("--allow-insecure")
            return command
        command = self.worker_command(name, "--log-level", "debug", "--drain-seconds", 3, *common)
        if self.hosts:
            command[command.index("--coordinator") + 1] = f"{address_of(0)}:{self.port}"
            command += ["--data-interface", "eth0"]
        return command

    def spawn(self, name):
        """Starts the process of that name, and waits for nothing."""
        self.starts[name] = self.starts.get(name, 0) + 1
        # Dies with this process also where there is no namespace to end.
        prefix = [*(self.hosts.prefix(self.host_of(name)) if self.hosts else []), "setpriv", "--pdeathsig", "KILL"]
        member = Member(name, [*prefix, *self.command_of(name)], self.dir / "logs" / f"{name}.{self.starts[name]}.log",
                        self.environment_of(name))
        self.members[name] = member
        self.tell("start", name=name, number=self.starts[name], pid=member.pid)
        return member

    def start(self):
        """The whole cluster, calibrated once, ready."""
        self.spawn(COORDINATOR)
        port_file = self.dir / "port"
        address = wait_for(lambda: port_file.exists() and port_file.read_text().strip(), "the coordinator's port", 30)
        self.port = int(address.rsplit(":", 1)[-1])
        self.server = f"127.0.0.1:{self.port}"
        self.spawn(NODES[0])
        self.wait_ready(NODES[0], seconds=90)
        for node in NODES[1:]:
            (self.dir / f"worker-{node}").mkdir()
            measured = self.dir / f"worker-{NODES[0]}" / "calibration.json"
            (self.dir / f"worker-{node}" / "calibration.json").write_bytes(measured.read_bytes())
            self.spawn(node)
        self.wait_ready(*NODES)

    def reap(self, may_end):
        """Members that have ended since the last call. may_end(member): whether something else explains it."""
        ended = [m for m in self.members.values() if m.popen.poll() is not None]
        for member in ended:
            del self.members[member.name]
            expected = member.ending or may_end(member)
            self.tell("exit", name=member.name, pid=member.pid, code=member.popen.returncode, expected=expected)
        return ended

    def running(self, name):
        """The process of that name where it runs and is not stopped; None."""
        member = self.members.get(name)
        return member if member and not member.frozen and member.popen.poll() is None else None

    def ranks(self):
        """[(node, pid)] of all executors whose daemon lives."""
        return [(node, pid) for node in NODES if node in self.members
                for pid in sorted(self.executors(self.members[node]))]

    def signal_member(self, member, number):
        member.popen.send_signal(number)

    # --- the command line, without waiting ---

    def start_client(self, *args, out=subprocess.PIPE):
        return subprocess.Popen([str(BIN / "seqpar"), "--server", self.server, "-o", "json", *map(str, args)],
                                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, text=True,
                                env=environment(), cwd=self.data)

    # --- the end ---

    def staged(self):
        return sorted(p.name for p in self.data.rglob("*") if ".seqpar-" in p.name)

    def stop(self):
        """In order; {name: exit code}. What does not end is killed, and says so by its code."""
        codes = {}
        for name in (*NODES, COORDINATOR):
            member = self.members.get(name)
            if member is None:
                continue
            member.ending = True
            member.popen.send_signal(signal.SIGTERM)
            try:
                codes[name] = member.popen.wait(scaled(30))
            except subprocess.TimeoutExpired:
                member.popen.kill()
                codes[name] = member.popen.wait()
        return codes

    def end_now(self):
        for member in self.members.values():
            member.popen.kill()
            member.popen.wait()
        if self.hosts:
            self.hosts.close()
        self.history.close()


def processes_of(folder):
    """Processes that still run and were started in that run, executors too: [(pid, command)]."""
    mark = f"{RUN_MARK}={folder}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or not alive(int(entry)):
            continue
        try:
            if mark in pathlib.Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                command = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                found.append((int(entry), command))
        except OSError:
            pass  # it has ended, or is another user's
    return found
