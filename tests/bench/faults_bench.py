"""How soon a fault is found, its gang stopped and the next attempt at work, over real processes.

    SEQPAR_BIN=build/bin python3 tests/bench/faults_bench.py [--repetitions 5] [--lease 6] [--step-timeout 10]

Two nodes of two slots, a job of two ranks on one of them, and one fault a run: an executor killed, its worker killed, a
rank stopped (SIGSTOP). Times are those of the processes' own logs. Bounds, beside what the deadline itself takes: found
within 1 s, the gang stopped 2 s later at most, the next attempt's first tile 5 s after the verdict at most.

example: SEQPAR_BIN=build/bin python3 tests/bench/faults_bench.py --repetitions 3 --fault "executor killed"
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "faults"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from fixed_costs import BIN, phase_begins, wait_for  # noqa: E402
from harness import children_of  # noqa: E402
from history import read_log  # noqa: E402

JOB = {
    "name": "fault",
    "config": {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2000},
    "weights": {"seed": 1},
    "input": {"seed": 2, "tokens": 1000},
    "workers": {"min": 2, "max": 2},
    "parallelism": {"strategy": "ring", "ring": 2},
}


class Cluster:
    def __init__(self, folder, lease, step_timeout):
        self.folder = folder
        self.workers = {}
        port_file = folder / "port"
        self.log = folder / "coordinator.log"
        self.coordinator = self.start(self.log, "seqpar-coordinator", "--listen", "127.0.0.1:0", "--port-file", port_file,
                                      "--state-dir", folder / "coordinator", "--lease", f"{lease}s", "--step-timeout",
                                      f"{step_timeout}s")
        address = wait_for(lambda: port_file.exists() and port_file.read_text().strip(), "the coordinator's port")
        self.server = "127.0.0.1:" + address.rsplit(":", 1)[-1]
        for name in ("node-a", "node-b"):
            self.start_worker(name)
        self.job = folder / "job.yaml"
        self.job.write_text(json.dumps(JOB))

    def start(self, log, binary, *args):
        with open(log, "ab") as out:
            return subprocess.Popen([str(BIN / binary), *map(str, args)], stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def start_worker(self, name):
        self.workers[name] = self.start(self.folder / f"{name}.log", "seqpar-worker", "--coordinator", self.server,
                                        "--node-name", name, "--cpu-slots", 2, "--threads-per-slot", 1,
                                        "--memory-per-slot", "1GiB", "--state-dir", self.folder / name)
        wait_for(lambda: any(n["name"] == name and n["state"] == "NODE_STATE_READY"
                             for n in self.cli("nodes").get("nodes", [])), f"{name} to be ready")

    def cli(self, *args):
        done = subprocess.run([str(BIN / "seqpar"), "--server", self.server, "-o", "json", *map(str, args)],
                              capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"seqpar {' '.join(map(str, args))}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def stop(self):
        for process in (*self.workers.values(), self.coordinator):
            process.kill()
            process.wait()

    def stage_begins(self, job, attempt, *stages):
        """When the coordinator's log first says one of them, in seconds since the epoch; None: not yet."""
        for record in read_log(self.log):
            if record.get("job") == job and record.get("attempt") == str(attempt) and record.get("stage") in stages:
                return record["t"]
        return None


def one_fault(cluster, fault):
    """(seconds to the verdict, from there until the gang was stopped, from the verdict to the next first tile)"""
    job = cluster.cli("submit", "-f", cluster.job)["id"]

    def executing(attempt):
        state = cluster.cli("get", job)
        return state.get("attempt") == attempt and state.get("phase") == "JOB_PHASE_EXECUTE" and \
            (state.get("progress") or {}).get("percent", 0) > 0 and state
    state = wait_for(lambda: executing(1), "the first attempt to execute")
    node = state["attempts"][0]["devices"][0].split("/")[0]
    worker = cluster.workers[node]
    begin = time.time()
    fault(worker)
    # Where nothing is left to stop, the attempt is over at once.
    verdict = wait_for(lambda: cluster.stage_begins(job, 1, "stopping", "queued"), "the verdict")
    stopped = wait_for(lambda: cluster.stage_begins(job, 1, "queued"), "the gang to be stopped")
    wait_for(lambda: executing(2), "the next attempt")
    tile = phase_begins(cluster.cli("logs", job, "--attempt", 2), "execute")
    cause = cluster.cli("get", job)["attempts"][0]["error"]["message"]
    cluster.cli("cancel", job)
    wait_for(lambda: cluster.cli("get", job)["state"] == "JOB_STATE_CANCELLED", "the cancel")
    if worker.poll() is not None:
        worker.wait()
        cluster.start_worker(node)
    wait_for(lambda: not any(children_of(w.pid) for w in cluster.workers.values()), "executors to be gone")
    return verdict - begin, stopped - verdict, tile - verdict, cause


def kill_executor(worker):
    os.kill(children_of(worker.pid)[0], signal.SIGKILL)


def kill_worker(worker):
    worker.kill()
    worker.wait()


def stop_rank(worker):
    os.kill(children_of(worker.pid)[0], signal.SIGSTOP)


FAULTS = {"executor killed": kill_executor, "worker killed": kill_worker, "rank stopped": stop_rank}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--lease", type=float, default=6)
    parser.add_argument("--step-timeout", type=float, default=10)
    parser.add_argument("--fault", choices=sorted(FAULTS), action="append", help="only this one; repeatable")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="seqpar-faults-"))
    cluster = Cluster(folder, options.lease, options.step_timeout)
    try:
        for name in options.fault or FAULTS:
            runs = [one_fault(cluster, FAULTS[name]) for _ in range(options.repetitions)]
            line = {"fault": name, "runs": len(runs), "cause": re.sub(r"\d{4,}", "N", runs[-1][3])}
            for i, what in enumerate(("found", "stopped", "first_tile")):
                times = sorted(run[i] for run in runs)
                line[f"{what}_s"] = {"p50": round(statistics.median(times), 3), "max": round(times[-1], 3)}
            print(json.dumps(line), flush=True)
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
