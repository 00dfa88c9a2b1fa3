"""Test hosts: network namespaces of one machine, joined by the switch of switch.py.

Everything is private to this process and ends with it: namespaces are held by processes, not by names, so that nothing
is left on the machine whatever happens. A host has its own interfaces (lo and eth0 at 10.99.0.N), routes and sockets,
and shares the files, which is what a shared volume would give.
"""
import json
import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
MTU = 9000  # fewer, larger frames: the switch is a process


def address_of(host):
    return f"10.99.0.{host + 1}"


class Hosts:
    """Host 0 is this process's own namespace, where the coordinator runs; the others, 1 to count, are for workers."""

    def __init__(self, count):
        self.count = count
        self.holders = []
        self.lines = {}  # (a, b): {owner: conditions}
        for _ in range(count):
            # Its own /sys shows its own interfaces, which is where UCX looks for them.
            self.holders.append(subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-c", "mount -t sysfs sysfs /sys && echo ready && exec sleep infinity"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True))
        for holder in self.holders:
            if holder.stdout.readline() != "ready\n":
                raise OSError("no network namespace can be made here")
        pids = [os.getpid()] + [h.pid for h in self.holders]
        self.switch = subprocess.Popen([sys.executable, FOLDER / "switch.py", *(f"eth0={pid}" for pid in pids)],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.switch.stdout.readline() != "ready\n":
            raise OSError("no TAP device can be made here")
        for host in range(count + 1):
            mac = f"02:00:00:00:00:{host + 1:02x}"
            script = (f"ip link set lo up; ip link set eth0 address {mac} mtu {MTU} up && "
                      f"ip addr add {address_of(host)}/24 dev eth0")
            # Neighbours are known from the start: a partition is not to be told by its ARP.
            for other in range(count + 1):
                if other != host:
                    script += f" && ip neigh replace {address_of(other)} lladdr 02:00:00:00:00:{other + 1:02x} dev eth0"
            subprocess.run([*self.prefix(host), "sh", "-c", script], check=True)

    def prefix(self, host):
        """What to put before a command so that it runs on that host; its process id stays the one started."""
        if host == 0:
            return []
        pid = self.holders[host - 1].pid
        return ["nsenter", f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt"]

    def hold(self, owner, lines, **conditions):
        """Of the lines [(a, b)] between hosts: blocked, loss, delay (s), rate (bytes/s), until the owner lets go. What
        several owners want of one line comes together."""
        for line in lines:
            self.lines.setdefault(tuple(line), {})[owner] = conditions
            self._apply(tuple(line))

    def release(self, owner):
        for line, owners in self.lines.items():
            if owners.pop(owner, None) is not None:
                self._apply(line)

    def _apply(self, line):
        together = {}
        for conditions in self.lines[line].values():
            together |= conditions
        self._order({"pair": line, **together})

    def _order(self, order):
        self.switch.stdin.write(json.dumps(order) + "\n")
        self.switch.stdin.flush()
        if self.switch.stdout.readline() != "ok\n":
            raise OSError("the switch has ended")

    def close(self):
        for process in (self.switch, *self.holders):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
