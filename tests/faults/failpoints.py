"""Failpoints as one more source of faults: of the table that the binaries print those are armed that were hit least, each
with an action that it honours, and brought about where a load alone seldom passes it."""
import collections
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import time

from cluster import BIN, COORDINATOR, NODES, environment
from faults import DrainWorker, Kill, KillExecutor, KillWorker, Planned, StopExecutor

ARM_SECONDS = 4.0  # from one to the next
WAIT_SECONDS = 20.0  # until one that nobody passed is taken back
HANG_SECONDS = (1.0, 8.0)  # until a watchdog would end a coordinator or a daemon that stands still
# How often an action is drawn, where a point honours it.
WEIGHTS = {"crash": 3, "error": 3, "delay": 2, "hang": 1, "drop_request": 3, "drop_response": 3, "in_flight": 3}
# A write that failed, or is not known to have happened, ends a coordinator too.
ENDS_ITS_PROCESS = ("crash", "in_flight", "error", "hang", "drop_response")


def table():
    """[{"name", "process", "phase", "actions"}] of the binaries; empty where they have none."""
    done = subprocess.run([str(BIN / "seqpar-coordinator"), "--list-failpoints", "-o", "json"], capture_output=True,
                          text=True, env=environment())
    return json.loads(done.stdout) if done.returncode == 0 else []


@dataclasses.dataclass(frozen=True)
class Turn:
    """A moment at which a failpoint is armed; `seed`: of what is drawn for it."""
    at: float
    seed: int


@dataclasses.dataclass(frozen=True)
class Arming:
    point: str
    line: str
    pick: float


def turns(rng, seconds):
    """[Turn], by time."""
    found, at = [], 1.0 + ARM_SECONDS / 2
    while at < seconds:
        found.append(Turn(at, rng.randrange(1 << 62)))
        at += ARM_SECONDS * rng.uniform(0.5, 1.5)
    return found


def arming(turn, number, points, hits, tries, armed, wanted):
    """What is armed at the number-th turn; None where all are already. `hits`, `tries`: of each point so far, by name;
    `wanted`: hits of each. One turn is for the point with the fewest hits, three tries in vain counting as one: else a
    point that nobody passes would have every turn. The next is for one that has not what is wanted, the one of them with
    the fewest tries. All else is drawn from the turn alone."""
    rng = random.Random(turn.seed)
    drawn = {point["name"]: rng.random() for point in points}
    free = [point for point in points if point["name"] not in armed]
    below = [point for point in free if hits[point["name"]] < wanted] if number % 2 else []
    if not free:
        return None

    def behind(point):
        name = point["name"]
        return (tries[name] if below else hits[name] + (tries[name] - hits[name]) / 3), drawn[name]
    point = min(below or free, key=behind)
    action = rng.choices(point["actions"], [WEIGHTS[a] for a in point["actions"]])[0]
    line = f"delay {rng.randrange(50, 1500)}" if action == "delay" else action
    # What is provoked comes once.
    skip = 0 if provocation_of(point["name"]) else rng.choice([0, 0, 0, 0, 1, 2])
    return Arming(point["name"], f"{line} skip={skip}" if skip else line, rng.random())


# --- bringing them about ---


def restart(kind, name):
    """The process of that name ends by the fault `kind` and comes back."""
    def provoke(points, pick):
        fault = kind(points.cluster, Planned(0, 0, "", 0, pick))
        fault.names = (name,) if name else NODES
        fault.number = signal.SIGTERM if kind is Kill else fault.number
        if fault.begin():
            fault.end()
    return provoke


def with_executors(kind):
    def provoke(points, pick):
        fault = kind(points.cluster, Planned(0, 0, "", 0, pick))
        if fault.begin() and kind is StopExecutor:
            points.later(4, fault.end)
    return provoke


def lose_worker(points, pick):
    fault = KillWorker(points.cluster, Planned(0, 0, "", 0, pick))
    if fault.begin():
        points.later(6, fault.end)


def command(*args):
    def provoke(points, pick):
        node = NODES[int(pick * len(NODES))]
        points.client(*(node if a is None else a for a in args))
    return provoke


def drain(points, pick):
    command("drain", None)(points, pick)
    points.later(2, lambda: command("drain", None, "--undo")(points, pick))


PROVOCATIONS = (
    (r"coordinator\.start\..*|coordinator\.store\.expire", restart(Kill, COORDINATOR)),
    (r"daemon\.start|daemon\.drain|daemon\.send\.hello|daemon\.receive\.welcome", restart(DrainWorker, None)),
    (r"coordinator\.(receive\.hello|send\.welcome)", restart(DrainWorker, None)),
    (r"coordinator\.node\.lost", lose_worker),
    (r"coordinator\.store\.backup", command("backup")),
    (r"coordinator\.(rpc|store)\.drain", drain),
    (r"coordinator\.rpc\.cancel", command("cancel", "j-0000000000000000")),
    (r"daemon\.kill", with_executors(StopExecutor)),
    (r".*\.(failed|stop|stopped|abort)", with_executors(KillExecutor)),
    (r"daemon\.executor\.exit", with_executors(KillExecutor)),
)


def provocation_of(point):
    for pattern, provoke in PROVOCATIONS:
        if re.fullmatch(pattern, point):
            return provoke
    return None


class Failpoints:
    """Arms what is due, sees what was hit, and takes back what nobody passed; tick() often."""

    def __init__(self, cluster, rng, planned, points, wanted):
        self.cluster, self.rng, self.points, self.wanted = cluster, rng, points, wanted
        self.folder = cluster.failpoints
        (self.folder / "armed").mkdir(parents=True)
        self.waiting = list(enumerate(planned))
        self.tries, self.hits_of = collections.Counter(), collections.Counter()  # by point
        self.armed = {}  # point: when it is taken back
        self.seen = 0  # bytes of hits.jsonl
        self.hits = []
        self.due = []  # (when, what to call)
        self.clients = []
        self.numbers = 0

    def later(self, seconds, call):
        self.due.append((time.monotonic() + seconds, call))

    def client(self, *args):
        self.clients.append(self.cluster.start_client("--timeout", 5, *args))

    def tick(self, at):
        """`at`: seconds since faults began; None: no more are armed."""
        self.look()
        while self.waiting and at is not None and self.waiting[0][1].at <= at:
            number, turn = self.waiting.pop(0)
            self.arm(arming(turn, number, self.points, self.hits_of, self.tries, self.armed, self.wanted))
        now = time.monotonic()
        for entry in [e for e in self.due if e[0] <= now or at is None]:
            self.due.remove(entry)
            entry[1]()
        for point, until in list(self.armed.items()):
            if until <= now or at is None:
                (self.folder / "armed" / point).unlink(missing_ok=True)
                del self.armed[point]
        for client in [c for c in self.clients if c.poll() is not None]:
            client.communicate()
            self.clients.remove(client)

    def arm(self, arming):
        if arming is None:
            return
        self.tries[arming.point] += 1
        elsewhere = self.folder / "arming"
        elsewhere.write_text(arming.line + "\n")
        elsewhere.rename(self.folder / "armed" / arming.point)
        self.armed[arming.point] = time.monotonic() + WAIT_SECONDS
        self.cluster.tell("armed", point=arming.point, line=arming.line)
        if provoke := provocation_of(arming.point):
            provoke(self, arming.pick)

    def look(self):
        path = self.folder / "hits.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as f:
            f.seek(self.seen)
            text = f.read()
        whole = text[:text.rfind(b"\n") + 1]
        self.seen += len(whole)
        for line in whole.splitlines():
            hit = json.loads(line)
            if "refused" in hit:
                raise ValueError(f"a failpoint was refused: {hit}")
            self.hits.append(hit)
            self.hits_of[hit["name"]] += 1
            self.numbers += 1
            number = f"failpoint-{self.numbers}"
            self.armed.pop(hit["name"], None)
            self.cluster.tell("fault begins", fault=number, kind=f"failpoint: {hit['action']}", point=hit["name"],
                              node=hit["node"], pid=hit["pid"], job=hit["job"])
            if hit["action"] == "hang" and hit["process"] != "executor":
                self.later(self.rng.uniform(*HANG_SECONDS), lambda hit=hit, number=number: self.end_hang(hit, number))
            else:
                self.cluster.tell("fault ends", fault=number, kind=f"failpoint: {hit['action']}")

    def end_hang(self, hit, number):
        """As a watchdog would."""
        if any(m.pid == hit["pid"] and m.popen.poll() is None for m in self.cluster.members.values()):
            os.kill(hit["pid"], signal.SIGKILL)
        self.cluster.tell("fault ends", fault=number, kind="failpoint: hang")

    def may_end(self, pid):
        """Whether a hit explains the end of that process."""
        self.look()
        return any(h["pid"] == pid and h["action"] in ENDS_ITS_PROCESS for h in self.hits)
