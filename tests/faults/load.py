"""The mixed load: small jobs of every strategy, forward and backward, with checkpoints, verification, priorities, repeated
submits and cancels; which, in what order and with what is drawn from a seed before anything runs."""
import array
import json
import random
import struct
import time

from checker import ENDED
from history import read_lines

MODEL = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48,
         "num_hidden_layers": 2, "rope_theta": 10000.0}
BACKWARD = {"pass": "forward_backward", "grad_output": {"seed": 3}}
INPUT_FILE = "input.safetensors"
WINDOW = {"kind": "window", "left": 20, "right": 3, "documents": [31, 60, 40]}


def job(ranks, parallelism=None, layers=2, tokens=131, **more):
    least, most = ranks if isinstance(ranks, tuple) else (ranks, ranks)
    found = {"config": {**MODEL, "num_hidden_layers": layers}, "weights": {"seed": 1}, "input": {"seed": 2, "tokens": tokens},
             "workers": {"min": least, "max": most}, **more}
    if parallelism:
        found["parallelism"] = parallelism
    return found


# Small enough that many fit in a minute, and some long enough that a fault finds them at work. (how often, job)
KINDS = {
    "one": (2, job(1, verify={"rows": 4}, **BACKWARD)),
    "megatron_sp": (2, job(2, {"strategy": "megatron_sp", "tensor": 2}, **BACKWARD)),
    "ulysses": (2, job(2, {"strategy": "ulysses", "ulysses": 2}, verify={"rows": 4})),
    "ring": (2, job(3, {"strategy": "ring", "ring": 3, "layout": "zigzag"}, **BACKWARD)),
    "double_ring": (1, job(4, {"strategy": "ring", "ring": 4, "inner": 2, "layout": "striped"})),
    "gather": (2, job(2, {"strategy": "gather", "ring": 2, "layout": "contiguous"}, mask=WINDOW, **BACKWARD)),
    "hybrid": (1, job(4, {"strategy": "hybrid", "ulysses": 2, "ring": 2, "layout": "zigzag"}, dtype="bfloat16", mask=WINDOW)),
    "hybrid_gather": (1, job(4, {"strategy": "hybrid", "tensor": 2, "ring": 2, "core": "gather", "layout": "contiguous"},
                             verify={"rows": 4}, **BACKWARD)),
    "auto": (2, job((1, 4), **BACKWARD)),
    "from_file": (2, job(2, {"strategy": "ulysses", "ulysses": 2}, input={"file": INPUT_FILE})),
    "report_only": (1, job(2, {"strategy": "ring", "ring": 2}, output=None)),
    "long_ring": (6, job(2, {"strategy": "ring", "ring": 2, "layout": "zigzag"}, layers=800, tokens=48)),
    "long_wide": (5, job((2, 5), {"strategy": "ring"}, layers=800, tokens=48)),
    "long_backward": (4, job(2, {"strategy": "ulysses", "ulysses": 2}, layers=250, tokens=48,
                             output={"tensors": ["hidden_states", "hidden_states.grad"]}, **BACKWARD)),
}
def write_input(path, tokens=131):
    """Hidden states for "from_file"."""
    rng = random.Random(1)
    values = array.array("f", (rng.gauss(0, 1) for _ in range(tokens * MODEL["hidden_size"])))
    header = json.dumps({"hidden_states": {"dtype": "F32", "shape": [1, tokens, MODEL["hidden_size"]],
                                           "data_offsets": [0, 4 * len(values)]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())


ATTEMPTS = 40  # of a job that is to come through whatever happens


def jobs(rng):
    """Without end: {"kind", "request", "spec", "submits", "cancel_after"}."""
    names = list(KINDS)
    weights = [KINDS[name][0] for name in names]
    number = 0
    while True:
        number += 1
        kind = rng.choices(names, weights)[0]
        spec = dict(KINDS[kind][1])
        request = f"request-{number}"
        few = rng.random() < 0.1
        spec |= {"name": kind, "labels": {"request": request}, "priority": rng.choice([-1, 0, 0, 0, 1, 2]),
                 "max_attempts": rng.choice([1, 2]) if few else ATTEMPTS}
        if rng.random() < 0.04:
            spec["deadline"] = rng.choice([5, 20])
        if spec.get("output", {}) is None:
            del spec["output"]
        else:
            spec["output"] = {**spec.get("output", {}), "file": f"{number:05}-{kind}.safetensors"}
        yield {"kind": kind, "request": request, "spec": spec, "submits": rng.choice([1, 1, 1, 2, 3]),
               "cancel_after": rng.uniform(0, 5) if rng.random() < 0.1 else None}


class Submit:
    """One request, asked for again until it is answered: after UNAVAILABLE, a deadline and the like it is not known whether
    there is a job."""
    NEVER = (2, 3, 4)  # usage, invalid, not found
    TIMEOUT = 10

    def __init__(self, cluster, entry, path):
        self.cluster, self.entry, self.path = cluster, entry, path
        self.not_before = 0
        self.client = None
        self.job = None

    def tick(self):
        """True once it is settled."""
        if self.client is None:
            if time.monotonic() < self.not_before:
                return False
            self.client = self.cluster.start_client("--timeout", self.TIMEOUT, "submit", "-f", self.path, "--request-id",
                                                    self.entry["request"])
            return False
        if self.client.poll() is None:
            return False
        out, err = self.client.communicate()
        code, self.client = self.client.returncode, None
        if code == 0:
            self.job = json.loads(out)["id"]
            self.cluster.tell("acknowledged", request=self.entry["request"], job=self.job, kind=self.entry["kind"])
            return True
        self.cluster.tell("submit failed", request=self.entry["request"], code=code, error=err.strip()[:500])
        self.not_before = time.monotonic() + 1
        return code in self.NEVER


class Load:
    """Keeps `live` jobs going; tick() often. `ended` is called with each job, as the API shows it, once it has."""

    def __init__(self, cluster, rng, live, ended):
        self.cluster, self.live, self.on_end = cluster, live, ended
        self.source = jobs(rng)
        self.submits = []
        self.following = {}  # job: (its watch, entry, when to cancel it)
        self.calls = []  # (what, job, client): calls on the way
        self.ended = 0
        self.submitted = 0
        self.open = True  # more are submitted

    def tick(self):
        requests = {s.entry["request"] for s in self.submits}
        if self.open and len(requests) + len(self.following) < self.live:
            self.submit(next(self.source))
        for submit in list(self.submits):
            if submit.tick():
                self.submits.remove(submit)
                if submit.job and submit.job not in self.following and not self.watch_file(submit.job).exists():
                    self.follow(submit.job, submit.entry)
        for job_id, (watch, entry, cancel_at) in list(self.following.items()):
            if cancel_at and time.monotonic() >= cancel_at:
                self.following[job_id] = (watch, entry, None)
                self.cluster.tell("cancel", job=job_id)
                self.call("cancel", job_id)
            if watch.poll() is not None:
                watch.stderr.close()
                self.cluster.tell("watch ends", job=job_id, code=watch.returncode)
                if self.seen_to_end(job_id):
                    del self.following[job_id]
                    self.call("get", job_id)
                else:  # not by the job's end: followed again
                    self.follow(job_id, entry, again=True)
        for call in list(self.calls):
            if call[2].poll() is not None:
                self.calls.remove(call)
                self.answered(*call)

    def submit(self, entry):
        path = self.cluster.dir / "submits" / f"{entry['request']}.json"
        path.write_text(json.dumps(entry["spec"]))
        self.cluster.tell("submit", request=entry["request"], kind=entry["kind"], spec=entry["spec"])
        self.submitted += 1
        self.submits += [Submit(self.cluster, entry, path) for _ in range(entry["submits"])]

    def follow(self, job_id, entry, again=False):
        cancel = entry["cancel_after"]
        with open(self.watch_file(job_id), "a") as out:
            if again:
                out.write('{"follows": true}\n')
                out.flush()
            watch = self.cluster.start_client("--timeout", 10, "watch", job_id, "--reconnect", 3600, out=out)
        cancel_at = time.monotonic() + cancel if cancel is not None and not again else None
        self.following[job_id] = (watch, entry, cancel_at)

    def seen_to_end(self, job_id):
        states = read_lines(self.watch_file(job_id))
        return bool(states) and states[-1].get("state") in ENDED

    def watch_file(self, job_id):
        return self.cluster.dir / "watch" / f"{job_id}.jsonl"

    def call(self, what, job_id):
        self.calls.append((what, job_id, self.cluster.start_client("--timeout", 10, what, job_id)))

    def answered(self, what, job_id, client):
        out, err = client.communicate()
        self.cluster.tell(f"{what} answered", job=job_id, code=client.returncode)
        if client.returncode != 0:
            self.cluster.tell("call failed", call=what, job=job_id, error=err.strip()[:500])
        if client.returncode not in (0, *Submit.NEVER) and (what == "get" or job_id in self.following):
            self.call(what, job_id)
        elif what == "get" and client.returncode == 0:
            self.ended += 1
            self.on_end(json.loads(out))

    def settled(self):
        return not self.submits and not self.following and not self.calls
