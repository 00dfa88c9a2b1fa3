#!/usr/bin/env python3
"""Kills (SIGKILL), then stops (SIGSTOP) each rank in turn in the middle of a running job on GPUs, and checks that the
next attempt succeeds, that the first one's error names the rank, that its GPU is free again and that the daemon lives.

usage: faults.py --seqpar PATH --worker PID --folder DIR --ranks N      (SEQPAR_SERVER names the coordinator)

The coordinator should have a short --no-progress-timeout. tests/gpu/service.sh runs it.

example: SEQPAR_SERVER=127.0.0.1:7700 tests/gpu/faults.py --seqpar build/bin/seqpar --worker 4711 --folder /tmp/data --ranks 2
"""
import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time


def wait_for(condition, what, seconds):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)


class Faults:
    def __init__(self, args):
        self.args = args

    def cli(self, *args):
        done = subprocess.run([self.args.seqpar, "-o", "json", *args], capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise AssertionError(f"seqpar {' '.join(args)}: {done.stderr}")
        return json.loads(done.stdout)

    def executors(self):
        """Processes of the worker by rank: they bear its number as their name."""
        found = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                name, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue  # gone meanwhile
            if name.startswith("seqpar-rank-") and int(rest.split()[1]) == self.args.worker:
                found[int(name.rsplit("-", 1)[1])] = int(stat.parent.name)
        return found

    def submit(self, name):
        ranks = self.args.ranks
        job = {
            "name": name,
            "config": {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 4,
                       "intermediate_size": 2816, "num_hidden_layers": 24, "rope_theta": 500000.0},
            "dtype": "bfloat16", "pass": "forward_backward", "weights": {"seed": 1},
            "input": {"seed": 2, "tokens": 262147}, "grad_output": {"seed": 3},
            "parallelism": {"strategy": "ring", "ring": ranks}, "devices": "cuda",
            "workers": {"min": ranks, "max": ranks}, "max_attempts": 2,
        }
        path = pathlib.Path(self.args.folder) / f"{name}.json"
        path.write_text(json.dumps(job))
        return self.cli("submit", "-f", str(path))["id"]

    def check(self, sig, rank):
        name = f"{sig.name.lower()}-rank-{rank}"
        job = self.submit(name)

        def runs():
            state = self.cli("get", job)
            if state["state"] not in ("JOB_STATE_PENDING", "JOB_STATE_RUNNING"):
                raise AssertionError(f"{name}: ended before it was harmed: {state['state']}")
            return (state.get("progress") or {}).get("percent", 0) > 0
        wait_for(runs, "layers to be done", 60)
        victim = self.executors()[rank]
        begin = time.monotonic()
        os.kill(victim, sig)
        failed = wait_for(lambda: self.cli("get", job)["attempts"][0].get("error"), "the attempt to fail", 60)
        seen = time.monotonic() - begin
        done = wait_for(lambda: (lambda s: s if s["state"] in ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED") else None)(
            self.cli("get", job)), "the job to end", 120)
        took = time.monotonic() - begin
        message = failed["message"]
        assert f"rank {rank} on " in message, f"{name}: another is blamed: {message}"
        assert sig != signal.SIGKILL or "signal 9" in message, f"{name}: {message}"
        assert done["state"] == "JOB_STATE_SUCCEEDED", f"{name}: {json.dumps(done.get('error'))}"
        assert len(done["attempts"]) == 2, f"{name}: {json.dumps(done['attempts'])}"
        # The same GPUs again: there are no others.
        assert sorted(done["attempts"][1]["devices"]) == sorted(done["attempts"][0]["devices"]), name
        devices = [d for n in self.cli("nodes")["nodes"] for d in n["devices"]]
        assert not any(d.get("set_aside") for d in devices), f"{name}: {devices}"
        assert not pathlib.Path(f"/proc/{victim}").exists(), f"{name}: its process is still there"
        os.kill(self.args.worker, 0)
        print(f"{name:18} seen after {seen:6.2f} s, succeeded after {took:6.2f} s: {message[:150]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seqpar", required=True)
    parser.add_argument("--worker", type=int, required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--ranks", type=int, required=True)
    faults = Faults(parser.parse_args())
    failed = 0
    for sig in (signal.SIGKILL, signal.SIGSTOP):
        for rank in range(faults.args.ranks):
            try:
                faults.check(sig, rank)
            except AssertionError as error:
                failed += 1
                print(f"FAILED: {error}", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
