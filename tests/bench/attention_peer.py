#!/usr/bin/env python3
"""Our attention kernels against PyTorch's scaled_dot_product_attention on the same shapes, in one run.

    attention_peer.py BENCH [--repetitions N] [SHAPE...]

BENCH is the attention_bench binary, shapes are its own (full and causal masks). Both compute in float32 on one
thread and are measured by CPU time; repetitions are interleaved. Needs a Python that has PyTorch, which nothing
else here does. Example:

    attention_peer.py build/bench/attention_bench --repetitions 5 128:4096:causal:8/2
"""

import argparse
import os
import statistics
import subprocess
import time

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

try:
    import torch  # after the environment
except ModuleNotFoundError:
    torch = None  # --help needs none

SHAPES = [
    "64:2048:full:4",
    "64:2048:causal:4",
    "128:2048:full:2",
    "128:2048:causal:2",
    "64:4096:causal:2",
    "80:2048:causal:2",
    "64:2048:causal:4/1",
]


class Peer:
    def __init__(self, shape):
        head_dim, tokens, mask, heads = (shape.split(":") + ["1"])[:4]
        if mask not in ("full", "causal"):
            raise SystemExit(f"{shape}: only full and causal masks")
        self.causal = mask == "causal"
        heads, _, kv_heads = heads.partition("/")
        self.grouped = bool(kv_heads) and kv_heads != heads

        def tensor(count):
            values = torch.rand(1, int(count), int(tokens), int(head_dim)) - 0.5
            return values.requires_grad_()

        self.q, self.k, self.v = tensor(heads), tensor(kv_heads or heads), tensor(kv_heads or heads)
        self.dout = torch.rand(1, int(heads), int(tokens), int(head_dim)) - 0.5

    def run(self):
        """CPU seconds forward and backward."""
        for x in (self.q, self.k, self.v):
            x.grad = None
        start = time.process_time()
        options = {"enable_gqa": True} if self.grouped else {}
        out = torch.nn.functional.scaled_dot_product_attention(
            self.q, self.k, self.v, is_causal=self.causal, **options
        )
        middle = time.process_time()
        out.backward(self.dout)
        return middle - start, time.process_time() - middle


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    args = parser.parse_args()
    if torch is None:
        parser.error("needs a Python that has PyTorch")
    shapes = args.shapes or SHAPES
    torch.set_num_threads(1)
    torch.manual_seed(1)
    peers = [Peer(shape) for shape in shapes]
    ours = subprocess.Popen(
        [args.bench, "--on-request", *shapes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    fractions = {shape: {"ours": ([], []), "peer": ([], [])} for shape in shapes}
    for repetition in range(args.repetitions + 1):
        ours.stdin.write("go\n")
        ours.stdin.flush()
        for shape, peer in zip(shapes, peers):
            name, flops, forward, backward, peak = ours.stdout.readline().split()
            assert name == shape
            peer_forward, peer_backward = peer.run()
            if repetition == 0:  # first touch of memory, on both sides
                continue
            flops, peak = float(flops), float(peak)
            for who, seconds in (("ours", (forward, backward)), ("peer", (peer_forward, peer_backward))):
                for side, factor in ((0, 1), (1, 2.5)):
                    fractions[shape][who][side].append(factor * flops / float(seconds[side]) / peak)
    ours.stdin.close()
    ours.wait()
    print(f"PyTorch {torch.__version__}, one thread; percent of the peak, median / best; ratio of the bests")
    for shape in shapes:
        parts = []
        for side, what in ((0, "forward"), (1, "backward")):
            mine, theirs = fractions[shape]["ours"][side], fractions[shape]["peer"][side]
            parts.append(
                f"{what} ours {100 * statistics.median(mine):5.1f}/{100 * max(mine):5.1f}"
                f" PyTorch {100 * statistics.median(theirs):5.1f}/{100 * max(theirs):5.1f}"
                f" ratio {max(mine) / max(theirs):4.2f}"
            )
        print(f"{shape:22s} " + "  ".join(parts))


if __name__ == "__main__":
    main()
