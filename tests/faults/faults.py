"""What is broken, and when: a table of faults, and schedules of them drawn from a seed."""
import dataclasses
import os
import signal
import threading

from cluster import COORDINATOR, LEASE_SECONDS, NODES, STEP_SECONDS, start_time


PAUSE_SECONDS = (0.5, 4.0)  # between faults, in which what they broke mends
ALONE_SECONDS = 6.0


@dataclasses.dataclass(frozen=True)
class Planned:
    """One fault of a schedule. `pick`: in [0, 1), which one of those there are then."""
    number: int
    at: float
    kind: str
    length: float
    pick: float


class Fault:
    """Breaks something for a while. begin() says what it harmed, or None where there is nothing to harm now."""
    seconds = (0.0, 0.0)  # how long it lasts
    weight = 2
    network = disk = isolated = False  # what it needs

    def __init__(self, cluster, planned):
        self.cluster, self.planned = cluster, planned

    def choose(self, things):
        return things[int(self.planned.pick * len(things))] if things else None

    def begin(self):
        raise NotImplementedError

    def end(self):
        pass

    def may_end(self, member):
        """Whether it explains that a process, which it did not end, ended by itself."""
        return False


# --- processes ---


class KillExecutor(Fault):
    weight = 5

    def begin(self):
        rank = self.choose(self.cluster.ranks())
        if rank is None:
            return None
        try:
            os.kill(rank[1], signal.SIGKILL)
        except ProcessLookupError:
            return None
        return {"node": rank[0], "pid": rank[1]}


class StopExecutor(Fault):
    """Stands still, and wakes later if it was not killed by then."""
    seconds = (0.5, 1.8 * STEP_SECONDS)
    weight = 4
    frozen = None

    def begin(self):
        rank = self.choose(self.cluster.ranks())
        if rank is None:
            return None
        self.frozen = (rank[1], start_time(rank[1]))
        try:
            os.kill(rank[1], signal.SIGSTOP)
        except ProcessLookupError:
            return None
        return {"node": rank[0], "pid": rank[1]}

    def end(self):
        self.send(signal.SIGCONT)

    def send(self, number):
        """To that very process, if it is still there."""
        pid, born = self.frozen
        if born is not None and start_time(pid) == born:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


class SlowExecutor(StopExecutor):
    """Stands still for most of the time, and so is slower than its gang."""
    seconds = (2.0, 12.0)
    stopped, running = 0.06, 0.005  # seconds of each turn
    weight = 2

    def begin(self):
        harmed = super().begin()
        if harmed is not None:
            self.over = threading.Event()
            self.turns = threading.Thread(target=self.take_turns, daemon=True)
            self.turns.start()
        return harmed

    def take_turns(self):
        while not self.over.wait(self.stopped):
            self.send(signal.SIGCONT)
            if self.over.wait(self.running):
                return
            self.send(signal.SIGSTOP)

    def end(self):
        self.over.set()
        self.turns.join()
        super().end()


class MemberFault(Fault):
    """Of one coordinator or worker."""
    names = NODES
    member = None

    def begin(self):
        running = [name for name in self.names if self.cluster.running(name)]
        name = self.choose(running)
        if name is None:
            return None
        self.member = self.cluster.members[name]
        self.harm()
        return {"node": name, "pid": self.member.pid}

    def harm(self):
        raise NotImplementedError


class Kill(MemberFault):
    number = signal.SIGKILL

    def harm(self):
        self.member.ending = True
        self.cluster.signal_member(self.member, self.number)

    def end(self):
        # One that was told to stop may still be at it: whoever finds it gone starts the next (Run.tick).
        self.member.again = True


class Stop(MemberFault):
    def harm(self):
        self.member.frozen = True
        self.cluster.signal_member(self.member, signal.SIGSTOP)

    def end(self):
        self.member.frozen = False
        if self.member.popen.poll() is None:
            self.cluster.signal_member(self.member, signal.SIGCONT)


class KillWorker(Kill):
    seconds = (0.1, 2 * LEASE_SECONDS)
    weight = 4


class StopWorker(Stop):
    seconds = (0.5, 2 * LEASE_SECONDS)
    weight = 3


class DrainWorker(Kill):
    """SIGTERM: it lets its ranks end for some seconds, then stops them."""
    number = signal.SIGTERM
    seconds = (0.5, 6.0)


class KillCoordinator(Kill):
    names = (COORDINATOR,)
    seconds = (0.1, 0.5 * LEASE_SECONDS)
    weight = 3


class KillCoordinatorLong(Kill):
    """Longer than a lease."""
    names = (COORDINATOR,)
    seconds = (1.1 * LEASE_SECONDS, 2 * LEASE_SECONDS)
    weight = 1


class TerminateCoordinator(Kill):
    number = signal.SIGTERM
    names = (COORDINATOR,)
    seconds = (0.1, 3.0)
    weight = 1


class StopCoordinator(Stop):
    names = (COORDINATOR,)
    seconds = (0.5, 2 * LEASE_SECONDS)


# --- the network ---


class NetworkFault(Fault):
    network = True
    seconds = (0.5, 2 * LEASE_SECONDS)
    conditions = {"blocked": True}

    def pick_lines(self):
        raise NotImplementedError

    def begin(self):
        detail, lines = self.pick_lines()
        self.cluster.hosts.hold(self.planned.number, lines, **self.conditions)
        return {**detail, "lines": lines, **self.conditions}

    def end(self):
        self.cluster.hosts.release(self.planned.number)


class CutHost(NetworkFault):
    """From all others."""
    weight = 3

    def pick_lines(self):
        host = 1 + int(self.planned.pick * len(NODES))
        return {"node": NODES[host - 1]}, [(host, other) for other in range(len(NODES) + 1) if other != host]


class CutFromCoordinator(NetworkFault):
    def pick_lines(self):
        host = 1 + int(self.planned.pick * len(NODES))
        return {"node": NODES[host - 1]}, [(0, host)]


class CutPair(NetworkFault):
    """Two hosts of workers from each other: the coordinator sees both."""
    seconds = (0.5, 1.8 * STEP_SECONDS)
    weight = 3

    def pick_lines(self):
        pairs = [(a, b) for a in range(1, len(NODES) + 1) for b in range(1, a)]
        return {}, [self.choose(pairs)]


class Weather(NetworkFault):
    """Everywhere."""
    seconds = (2.0, 8.0)

    def pick_lines(self):
        return {}, [(a, b) for a in range(len(NODES) + 1) for b in range(a)]


class Loss(Weather):
    @property
    def conditions(self):
        return {"loss": round(0.02 + 0.2 * self.planned.pick, 3)}


class Delay(Weather):
    @property
    def conditions(self):
        return {"delay": round(0.01 + 0.1 * self.planned.pick, 3)}


class Bandwidth(Weather):
    @property
    def conditions(self):
        return {"rate": int(100e3 + 1e6 * self.planned.pick)}


# --- disks ---


class FullDisk(Fault):
    isolated = True
    seconds = (1.0, 5.0)
    weight = 1
    folder = ""

    def begin(self):
        self.ballast = getattr(self.cluster, self.folder, self.cluster.dir / self.folder) / f"ballast-{self.planned.number}"
        with open(self.ballast, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(65536))
            except OSError:
                pass
        return {"folder": self.folder}

    def end(self):
        self.ballast.unlink(missing_ok=True)


class FullStore(FullDisk):
    folder = "state"

    def may_end(self, member):
        # It cannot start where what was kept back is given up as well.
        return member.name == COORDINATOR and not (self.ballast.parent / "reserve").exists()


class FullData(FullDisk):
    folder = "data"


class SwitchFault(MemberFault):
    """Of the library between a process and its disk; executors have their daemon's."""
    disk = True
    switch = ""

    def harm(self):
        self.cluster.switch(self.switch, self.member.name).touch()

    def end(self):
        self.cluster.switch(self.switch, self.member.name).unlink(missing_ok=True)


class SlowDisk(SwitchFault):
    switch = "slow"
    names = (COORDINATOR, *NODES)
    seconds = (1.0, 5.0)
    weight = 1


class WorkerFsyncFails(SwitchFault):
    switch = "failing"
    seconds = (0.5, 3.0)
    weight = 1


class CoordinatorFsyncFails(SwitchFault):
    """It ends: what is on disk is known only to the next one."""
    switch = "failing"
    names = (COORDINATOR,)
    seconds = (0.5, 2.0)
    weight = 1

    def harm(self):
        super().harm()
        self.member.ending = True

    def end(self):
        super().end()
        self.member.again = True

    def may_end(self, member):
        return member.name == COORDINATOR  # the next one, before it is over


KINDS = {
    "executor killed": KillExecutor,
    "executor stopped": StopExecutor,
    "executor slowed": SlowExecutor,
    "worker killed": KillWorker,
    "worker stopped": StopWorker,
    "worker drained": DrainWorker,
    "coordinator killed": KillCoordinator,
    "coordinator killed, back after the lease": KillCoordinatorLong,
    "coordinator terminated": TerminateCoordinator,
    "coordinator stopped": StopCoordinator,
    "host cut off": CutHost,
    "host cut off from the coordinator": CutFromCoordinator,
    "two hosts cut off from each other": CutPair,
    "loss": Loss,
    "delay": Delay,
    "bandwidth": Bandwidth,
    "disk of the store full": FullStore,
    "disk of the data full": FullData,
    "slow disk": SlowDisk,
    "fsync fails, worker": WorkerFsyncFails,
    "fsync fails, coordinator": CoordinatorFsyncFails,
}


def usable(isolated, disk):
    """Names of the kinds that can be had here."""
    return [name for name, kind in KINDS.items()
            if (isolated or not (kind.network or kind.isolated)) and (disk or not kind.disk)]


def schedule(rng, seconds, kinds, alone=False):
    """Faults alone and several at a time, with pauses in which what they broke mends: [Planned], by time. `alone`: one
    at a time, each long enough to be found, and time enough to see what follows."""
    weights = [KINDS[name].weight for name in kinds]
    planned, at = [], 1.0
    while at < seconds and kinds:
        count = 1 if alone else rng.choices([1, 2, 3], [4, 3, 3])[0]
        over = at
        for kind in rng.choices(kinds, weights, k=count):
            begin = at + (rng.uniform(0, 2) if count > 1 else 0)
            least, most = KINDS[kind].seconds
            length = rng.uniform(0.75 * most if alone else least, most)
            planned.append((begin, kind, length, rng.random()))
            over = max(over, begin + length)
        at = over + (ALONE_SECONDS if alone else rng.uniform(*PAUSE_SECONDS))
    planned.sort()
    return [Planned(number, *fault) for number, fault in enumerate(planned, 1) if fault[0] < seconds]
