"""What a job costs beside its work, over real processes: submit to first tile, a short job end to end, what idle
processes use, and submits while many jobs wait.

    SEQPAR_BIN=build/bin python3 tests/bench/fixed_costs.py [--repetitions 9] [--queued 10000] [--idle-seconds 10]

SEQPAR_BIN is the folder of the binaries; submit_bench is taken from ../bench beside it. Targets: first tile below
150 ms, 1,000 tokens end to end below 300 ms, no CPU while idle, submits as fast with 10,000 jobs waiting as without.

example: SEQPAR_BIN=build/bin python3 tests/bench/fixed_costs.py --repetitions 3 --queued 1000
"""
import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

BIN = pathlib.Path(os.environ.get("SEQPAR_BIN", "build/bin")).resolve()
SLOTS = 2
JOB = {
    "name": "short",
    "config": {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "num_hidden_layers": 2},
    "weights": {"seed": 1},
    "input": {"seed": 2, "tokens": 1000},
    "output": {"file": "out.safetensors", "overwrite": True},
    "workers": {"min": SLOTS, "max": SLOTS},
}


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    sys.exit(f"waited {seconds} s in vain for {what}")


def cpu_seconds(pid):
    """CPU time of all threads of a process, to the nanosecond."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(pathlib.Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass  # it has ended
    return total / 1e9


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        (folder / "data").mkdir()
        port_file = folder / "port"
        self.coordinator = self.start("seqpar-coordinator", "--listen", "127.0.0.1:0", "--port-file", port_file,
                                      "--state-dir", folder / "coordinator", "--data-root", f"data={folder / 'data'}")
        address = wait_for(lambda: port_file.exists() and port_file.read_text().strip(), "the coordinator's port")
        self.server = "127.0.0.1:" + address.rsplit(":", 1)[-1]
        self.worker = self.start("seqpar-worker", "--coordinator", self.server, "--node-name", "node", "--cpu-slots",
                                 SLOTS, "--threads-per-slot", 1, "--memory-per-slot", "1GiB", "--data-root",
                                 f"data={folder / 'data'}", "--state-dir", folder / "worker")
        wait_for(self.ready, "the worker")
        self.job = folder / "job.yaml"
        self.job.write_text(json.dumps(JOB))

    def start(self, binary, *args):
        with open(self.folder / f"{binary}.log", "ab") as log:
            return subprocess.Popen([str(BIN / binary), *map(str, args)], stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=log)

    def cli(self, *args):
        done = subprocess.run([str(BIN / "seqpar"), "--server", self.server, "-o", "json", *map(str, args)],
                              capture_output=True, text=True, cwd=self.folder / "data")
        if done.returncode != 0:
            sys.exit(f"seqpar {' '.join(map(str, args))}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def ready(self):
        return any(n["state"] == "NODE_STATE_READY" for n in self.cli("nodes").get("nodes", []))

    def stop(self):
        for process in (self.worker, self.coordinator):
            process.terminate()
            process.wait(30)


def phase_begins(logs, phase):
    """When the last rank began the phase, in seconds since the epoch."""
    times = []
    for log in logs["logs"]:
        for line in log["text"].splitlines():
            if "phase begins" in line and f"phase={phase}" in line.replace('"', ""):
                stamp = line.split()[0].rstrip("Z")
                moment = datetime.datetime.fromisoformat(stamp).replace(tzinfo=datetime.timezone.utc)
                times.append(moment.timestamp())
    return max(times)


def run_short_jobs(cluster, repetitions):
    end_to_end, first_tile, parts = [], [], {}
    for _ in range(repetitions + 1):
        start = time.time()
        job = cluster.cli("submit", "-f", cluster.job, "--wait")
        end_to_end.append(time.time() - start)
        logs = cluster.cli("logs", job["id"])
        before = start
        for phase in ("bootstrap", "shard", "execute", "merge", "report"):
            begins = phase_begins(logs, phase)
            parts.setdefault(f"to {phase}", []).append(begins - before)
            before = begins
        parts.setdefault("to the answer", []).append(start + end_to_end[-1] - before)
        first_tile.append(phase_begins(logs, "execute") - start)
    # The first warms up: page cache, connections.
    return end_to_end[1:], first_tile[1:], {name: times[1:] for name, times in parts.items()}


def show(name, seconds, target=None):
    milliseconds = sorted(1e3 * s for s in seconds)
    line = f"{name:44} median {statistics.median(milliseconds):7.1f} ms, best {milliseconds[0]:7.1f}"
    print(line + (f"  (target {target} ms)" if target else ""), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--queued", type=int, default=10000)
    parser.add_argument("--idle-seconds", type=float, default=10)
    args = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-fixed-costs-"))
    cluster = Cluster(folder)
    try:
        end_to_end, first_tile, parts = run_short_jobs(cluster, args.repetitions)
        show("submit to first tile", first_tile, 150)
        show("1,000 tokens end to end, command line too", end_to_end, 300)
        for name, seconds in parts.items():
            show("  " + name, seconds)
        command = [[str(BIN / "seqpar"), "--version"]] * args.repetitions
        starts = []
        for c in command:
            start = time.time()
            subprocess.run(c, capture_output=True)
            starts.append(time.time() - start)
        show("  of it the command line's own start", starts)
        used = {name: cpu_seconds(p.pid) for name, p in (("coordinator", cluster.coordinator), ("daemon", cluster.worker))}
        time.sleep(args.idle_seconds)
        for name, p in (("coordinator", cluster.coordinator), ("daemon", cluster.worker)):
            share = (cpu_seconds(p.pid) - used[name]) / args.idle_seconds
            print(f"idle {name:39} {100 * share:7.3f} % of a core", flush=True)
        if args.queued > 0:
            bench = BIN.parent / "bench" / "submit_bench"
            out = subprocess.run([str(bench), cluster.server, str(args.queued)], capture_output=True, text=True)
            print(out.stderr, end="", file=sys.stderr)
            figures = json.loads(out.stdout)
            print(f"a submit, first hundred of {figures['jobs']:,}: {figures['first_ms']:.2f} ms, last hundred "
                  f"{figures['last_ms']:.2f} ms, the slowest {figures['worst_ms']:.1f} ms", flush=True)
            before = cpu_seconds(cluster.coordinator.pid)
            time.sleep(args.idle_seconds)
            share = (cpu_seconds(cluster.coordinator.pid) - before) / args.idle_seconds
            print(f"idle coordinator with {args.queued:,} jobs waiting {100 * share:7.3f} % of a core", flush=True)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
