"""As systemd and containers run them: readiness, the watchdog, orphans, and a log that a machine reads."""
import datetime
import json
import os
import signal
import socket
import subprocess
import unittest

from harness import BIN, ClusterTest, Process, children_of, environment, scaled, wait_for
from held import Held


class Manager:
    """The socket of a service manager."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.environment = {"NOTIFY_SOCKET": self.path}

    def next(self, seconds=60):
        self.socket.settimeout(scaled(seconds))
        return self.socket.recv(4096).decode()

    def close(self):
        self.socket.close()


class Supervised(ClusterTest):
    autostart = False

    def manager(self, name):
        manager = Manager(self.dir / name)
        self.addCleanup(manager.close)
        return manager

    def test_they_say_when_they_are_ready_alive_and_stopping(self):
        for name, args in (("coordinator", ["--listen", "127.0.0.1:0", "--state-dir", self.dir / "state"]),
                           ("worker", ["--coordinator", "127.0.0.1:1", "--state-dir", self.dir / "calibration"])):
            with self.subTest(name):
                manager = self.manager(name)
                os.environ.update(manager.environment, WATCHDOG_USEC="400000")
                try:
                    process = Process([BIN / f"seqpar-{name}", *args], self.dir / f"{name}.log")
                finally:
                    for variable in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
                        del os.environ[variable]
                self.processes.append(process)
                self.assertEqual(manager.next(120), "READY=1")
                for _ in range(3):
                    self.assertEqual(manager.next(), "WATCHDOG=1")
                # Nobody else speaks for it.
                self.assertNotIn(b"NOTIFY_SOCKET", b"".join(
                    open(f"/proc/{child}/environ", "rb").read() for child in children_of(process.pid)))
                process.popen.send_signal(signal.SIGTERM)
                said = manager.next()
                while said == "WATCHDOG=1":
                    said = manager.next()
                self.assertEqual(said, "STOPPING=1")
                self.assertEqual(process.popen.wait(scaled(30)), 0)

    def test_one_that_stands_still_says_so(self):
        """By failpoints in the loops that they live by; the watchdog's time also counts for /healthz."""
        watchdog = scaled(12)  # half of it without a round is standing still; an idle loop begins one each second or three
        armed = self.dir / "failpoints/armed"
        job = self.write_job(workers={"min": 1})
        for name, point, args in (
                ("coordinator", "coordinator.store.submit", ["--listen", "127.0.0.1:0", "--port-file", self.dir / "port",
                                                             "--data-root", f"data={self.data}"]),
                ("worker", "daemon.drain", ["--coordinator", "127.0.0.1:1"])):
            with self.subTest(name):
                manager = self.manager(name)
                process = Process([BIN / f"seqpar-{name}", *args, "--state-dir", self.dir / f"{name}-state",
                                   "--test-failpoints", self.dir / "failpoints", "--metrics-listen", "127.0.0.1:0",
                                   "--metrics-port-file", self.dir / f"{name}.metrics"], self.dir / f"{name}.log",
                                  manager.environment | {"WATCHDOG_USEC": str(watchdog * 10**6)})
                self.processes.append(process)
                self.assertEqual(manager.next(120), "READY=1")
                self.assertEqual(self.http(name, "/healthz"), (200, "ok\n"))
                (armed.parent / "arming").write_text("hang\n")
                (armed.parent / "arming").rename(armed / point)
                if name == "coordinator":
                    self.server = (self.dir / "port").read_text().strip()
                    self.start_cli("submit", "-f", job)
                    self.server = None  # nobody asks it any more
                else:
                    process.popen.send_signal(signal.SIGTERM)
                code, why = wait_for(lambda name=name: self.http(name, "/healthz")[0] == 503 and self.http(name, "/healthz"),
                                     "it to stand still")
                self.assertEqual(code, 503)
                self.assertRegex(why, "has stood still for [0-9]+ s")
                self.assertEqual(self.http(name, "/metrics")[0], 200)  # whoever looks still sees it
                process.kill()

    def test_the_first_process_of_a_container_reaps_what_it_inherits(self):
        for name, args in (("coordinator", ["--listen", "127.0.0.1:0", "--state-dir", self.dir / "state"]),
                           ("worker", ["--coordinator", "127.0.0.1:1", "--state-dir", self.dir / "calibration"])):
            with self.subTest(name):
                # A shell that becomes the daemon leaves it its children.
                go = self.dir / "go"
                go.unlink(missing_ok=True)
                os.mkfifo(go)
                process = Process(["sh", "-c", f'read x <"{go}" & echo started $!; exec "$@"', "sh",
                                   BIN / f"seqpar-{name}", *args], self.dir / f"{name}.log")
                self.processes.append(process)
                log = self.dir / f"{name}.log"
                orphan = int(wait_for(lambda: "started" in log.read_text() and log.read_text(), "the shell").split()[1])
                up = {"coordinator": "serving", "worker": "worker starts"}[name]
                wait_for(lambda: up in log.read_text(), "the daemon", 120)
                self.assertIn(orphan, children_of(process.pid))
                go.write_text("\n")
                wait_for(lambda: not os.path.exists(f"/proc/{orphan}"), "the orphan to be reaped")
                process.kill(signal.SIGTERM)

    def test_off_loopback_it_listens_only_where_that_was_asked_for(self):
        refused = subprocess.run([BIN / "seqpar-coordinator", "--listen", "0.0.0.0:0", "--state-dir",
                                  self.dir / "state"], capture_output=True, text=True, env=environment(),
                                 timeout=scaled(60))
        self.assertEqual(refused.returncode, 2)
        self.assertIn("--allow-insecure", refused.stdout + refused.stderr)
        port_file = self.dir / "port"
        self.processes.append(Process([BIN / "seqpar-coordinator", "--listen", "0.0.0.0:0", "--allow-insecure",
                                       "--port-file", port_file, "--state-dir", self.dir / "state"],
                                      self.dir / "coordinator.log"))
        address = wait_for(lambda: port_file.exists() and port_file.read_text().strip(), "the coordinator's port")
        self.assertTrue(address.startswith("0.0.0.0:"), address)
        with socket.create_connection(("127.0.0.2", int(address.rpartition(":")[2])), timeout=scaled(10)):
            pass


class Logs(Held):
    lease = "20s"
    coordinator_flags = ("--log-format", "json")

    def start_worker(self, name, *more, **options):
        return super().start_worker(name, "--log-format", "json", *more, **options)

    def records(self, log):
        """The JSON records of a process, each checked."""
        found = []
        for line in log.read_text().splitlines():
            record = json.loads(line)
            self.assertLessEqual({"time", "level", "component", "message"}, set(record), line)
            datetime.datetime.strptime(record["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
            found.append(record)
        return found

    def test_each_line_of_a_log_is_a_record_also_what_executors_print(self):
        self.hold_file("executor", "execute").touch()
        job = self.submit(self.job_file())
        self.wait_executors_held("execute", job)
        self.cli("cancel", job)
        self.wait_ended(job)
        self.release("executor", "execute")
        wait_for(lambda: not self.executors(self.worker), "executors to be gone")

        def printed():
            return [r for r in self.records(self.worker.log) if r.get("from") == "executor" and
                    r["message"].startswith("executor ends: in phase execute")]
        records = wait_for(lambda: len(printed()) == 4 and printed(), "the last words of four executors")
        for record in records:  # said once, as fields
            self.assertNotRegex(record["message"], "job=|attempt=|rank=")
        self.assertEqual(sorted(r["rank"] for r in records), ["0", "1", "2", "3"])
        for record in records:
            self.assertEqual((record["job"], record["attempt"], record["phase"]), (job, "1", "execute"))
        of_ranks = [r for r in self.records(self.worker.log) if "rank" in r]
        for record in of_ranks:
            self.assertEqual((record["job"], record["attempt"]), (job, "1"))
            self.assertNotIn("phase=", record["message"])
        phases = {begin: {r["phase"] for r in of_ranks if r["message"].startswith(begin)}
                  for begin in ("rank started", "connected", "phase begins", "executor ended")}
        self.assertEqual(phases, {"rank started": {"bootstrap"}, "connected": {"bootstrap"},
                                  "phase begins": {"bootstrap", "shard", "execute"}, "executor ended": {"execute"}})
        self.records(self.coordinator.log)


if __name__ == "__main__":
    unittest.main()
