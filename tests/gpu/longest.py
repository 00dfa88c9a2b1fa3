#!/usr/bin/env python3
"""Finds the longest sequence of one layer, forward and backward, that the planner lets onto one GPU, runs exactly that,
compares predicted with measured memory, and checks that a tenth more is refused when it is planned.

usage: longest.py --seqpar PATH --folder DIR [--memory-margin 0.1]     (SEQPAR_SERVER names the coordinator; one worker
with GPUs is attached)

The layer is Llama-3-8B's: D 4096, 32 heads over 8 KV heads, SwiGLU 14336, causal, bfloat16. tests/gpu/service.sh runs
it.

example:
  SEQPAR_SERVER=127.0.0.1:7700 longest.py --seqpar build/bin/seqpar --folder /tmp/longest
"""
import argparse
import json
import pathlib
import subprocess
import sys
import threading
import time


class Longest:
    def __init__(self, args):
        self.args = args

    def cli(self, *args, timeout=600):
        return subprocess.run([self.args.seqpar, "-o", "json", *args], capture_output=True, text=True, timeout=timeout)

    def job(self, tokens):
        path = pathlib.Path(self.args.folder) / f"longest-{tokens}.json"
        config = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
                  "intermediate_size": 14336, "num_hidden_layers": 1, "rope_theta": 500000.0}
        path.write_text(json.dumps({
            "name": path.stem, "config": config, "mask": {"kind": "causal"}, "dtype": "bfloat16",
            "pass": "forward_backward", "weights": {"seed": 1}, "input": {"seed": 2, "tokens": tokens},
            "grad_output": {"seed": 3}, "parallelism": "auto", "devices": "cuda", "workers": {"min": 1, "max": 1},
        }))
        return str(path)

    def refusal(self, tokens):
        """None where the planner takes it, else the reason and what it says."""
        done = self.cli("plan", "-f", self.job(tokens))
        if done.returncode == 0:
            return None
        error = json.loads(done.stderr)
        return error["details"][0]["reason"], error["message"]

    def search(self):
        fits, over = 1024, 2048
        while self.refusal(over) is None:
            fits, over = over, 2 * over
        while over - fits > 1:
            middle = (fits + over) // 2
            if self.refusal(middle) is None:
                fits = middle
            else:
                over = middle
        return fits

    def run(self, tokens):
        """The job as `get` prints it, and the most memory of a GPU in use meanwhile, MiB."""
        most, over = [0], threading.Event()

        def look():
            while not over.is_set():
                used = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                                      capture_output=True, text=True).stdout.split()
                most[0] = max([most[0], *(int(x) for x in used)])
                time.sleep(0.2)

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            submitted = self.cli("submit", "-f", self.job(tokens))
            if submitted.returncode != 0:
                raise AssertionError(submitted.stderr)
            job = json.loads(submitted.stdout)["id"]
            waited = self.cli("watch", job)
            state = json.loads(self.cli("get", job).stdout)
        finally:
            over.set()
            watcher.join()
        if state["state"] != "JOB_STATE_SUCCEEDED":
            raise AssertionError(f"{tokens} tokens: {json.dumps(state.get('error'))} {waited.stderr}")
        return state, most[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seqpar", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--memory-margin", type=float, default=0.1, help="between predicted and measured")
    longest = Longest(parser.parse_args())
    tokens = longest.search()
    state, used_mib = longest.run(tokens)
    report = state["report"]
    rank = report["ranks"][0]
    measured, predicted = int(rank["peak_bytes"]), int(rank["predicted_peak_bytes"])
    print(f"longest: {tokens} tokens in {report['step_seconds']:.2f} s (predicted {report['predicted_step_seconds']:.2f}); "
          f"memory {measured / 2**30:.2f} GiB, predicted {predicted / 2**30:.2f}, "
          f"the card's in use at the peak {used_mib / 1024:.2f}")
    assert abs(predicted / measured - 1) <= longest.args.memory_margin, "predicted memory is off"
    more = tokens + tokens // 10
    refused = longest.refusal(more)
    assert refused is not None and refused[0] == "INFEASIBLE", f"{more} tokens are not refused: {refused}"
    print(f"{more} tokens are refused: {refused[1]}")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"FAILED: {error}")
        sys.exit(1)
