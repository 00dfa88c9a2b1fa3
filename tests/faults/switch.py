"""A network switch in user space between test hosts, with the weather of a real network: partitions, loss, delay and
bandwidth limits for each pair of hosts and direction, whether or not the kernel has netem.

    python3 switch.py eth0=PID eth0=PID ...

makes a TAP device of that name in the network namespace of each process PID and forwards Ethernet frames between them;
host numbers count from 0 in that order. It answers "ready" on standard output, then obeys lines on standard input, one
JSON object each, and answers each with a line:

    {"pair": [0, 2], "blocked": true, "loss": 0.1, "delay": 0.05, "rate": 125000}   both directions; what is left out is off

delay in seconds, rate in bytes/s in each direction. It ends with its standard input.
"""
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_MAX = 65536
QUEUE_SECONDS = 0.5  # a limited link holds so much; what comes on top is lost, as on a real one


def mac_of(host):
    return bytes([0x02, 0, 0, 0, 0, host + 1])


class Line:
    """One direction between two hosts."""
    __slots__ = ("blocked", "loss", "delay", "rate", "free_at")

    def __init__(self, blocked=False, loss=0.0, delay=0.0, rate=0):
        self.blocked, self.loss, self.delay, self.rate = blocked, loss, delay, rate
        self.free_at = 0.0

    def due(self, now, size, draw):
        """When a frame that came now arrives; None: never."""
        if self.blocked or (self.loss and draw < self.loss):
            return None
        at = now
        if self.rate:
            begin = max(now, self.free_at)
            if begin - now > QUEUE_SECONDS:
                return None
            self.free_at = at = begin + size / self.rate
        return at + self.delay


class Switch:
    def __init__(self, taps, seed=0):
        self.taps = taps
        self.random = random.Random(seed)
        self.hosts = {mac_of(i): i for i in range(len(taps))}
        self.lines = {}  # (from, to) -> Line; absent: a perfect one
        self.waiting = []  # (due, number, to, frame)
        self.number = 0

    def command(self, order):
        a, b = order["pair"]
        for pair in ((a, b), (b, a)):
            self.lines.pop(pair, None)
            settings = {k: order[k] for k in ("blocked", "loss", "delay", "rate") if order.get(k)}
            if settings:
                self.lines[pair] = Line(**settings)

    def forward(self, source, frame):
        target = self.hosts.get(frame[:6])
        for to in range(len(self.taps)) if target is None else (target,):
            if to == source:
                continue
            line = self.lines.get((source, to))
            if line is None:
                self.send(to, frame)
                continue
            now = time.monotonic()
            due = line.due(now, len(frame), self.random.random())
            if due is None:
                continue
            if due <= now:
                self.send(to, frame)
            else:
                self.number += 1
                heapq.heappush(self.waiting, (due, self.number, to, frame))

    def send(self, to, frame):
        try:
            os.write(self.taps[to], frame)
        except OSError:
            pass  # the device's queue is full, or down: a lost frame

    def run(self, orders):
        poller = select.epoll()
        for i, tap in enumerate(self.taps):
            os.set_blocking(tap, False)
            poller.register(tap, select.EPOLLIN)
        poller.register(orders, select.EPOLLIN)
        by_fd = {tap: i for i, tap in enumerate(self.taps)}
        text = b""
        while True:
            timeout = max(0.0, self.waiting[0][0] - time.monotonic()) if self.waiting else -1
            for fd, _ in poller.poll(timeout):
                if fd == orders:
                    got = os.read(orders, 65536)
                    if not got:
                        return
                    *lines, text = (text + got).split(b"\n")
                    for line in lines:
                        self.command(json.loads(line))
                        print("ok", flush=True)
                    continue
                # A few at a time: orders and other hosts are not to wait long.
                for _ in range(32):
                    try:
                        frame = os.read(fd, FRAME_MAX)
                    except BlockingIOError:
                        break
                    self.forward(by_fd[fd], frame)
            now = time.monotonic()
            while self.waiting and self.waiting[0][0] <= now:
                _, _, to, frame = heapq.heappop(self.waiting)
                self.send(to, frame)


def open_tap(name, pid):
    """A TAP device in the network namespace of a process. This thread comes back to its own namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)

    def enter(namespace):
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    try:
        enter(there)
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        enter(home)
        return tap
    finally:
        os.close(home)
        os.close(there)


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    ends = [word.split("=") for word in sys.argv[1:]]
    taps = [open_tap(name, int(pid)) for name, pid in ends]
    print("ready", flush=True)
    Switch(taps).run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
