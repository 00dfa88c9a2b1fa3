#!/usr/bin/env python3
"""Our attention on a GPU against PyTorch's scaled_dot_product_attention by cuDNN, in one run.

    gpu_attention_peer.py BENCH [--rounds N] [--deterministic] [SHAPE...]

BENCH is the gpu_kernels_bench binary; a shape is HEAD_DIM:TOKENS:full|causal:HEADS/KV_HEADS, bfloat16, batch 1. Rounds
are interleaved, each one call timed by events from launch to finish; the table shows medians. Ours gives float32
partial results (O, and sums that dQ, dK and dV are added to), cuDNN bfloat16 ones; "merged" is our forward pass into
partial results that are there, as a step of a ring. Example:

    gpu_attention_peer.py build/bench/gpu_kernels_bench 128:8192:causal:32/8
"""

import argparse
import statistics
import subprocess

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = [
    f"{dim}:{tokens}:{mask}:{heads}"
    for tokens in (8192, 32768)
    for dim in (64, 128)
    for mask in ("causal", "full")
    for heads in ("32/32", "32/8")
] + ["96:8192:causal:32/32", "128:8191:causal:32/32", "128:10007:full:32/8", "128:131072:causal:32/8"]


class Peer:
    def __init__(self, shape):
        dim, tokens, mask, heads = shape.split(":")
        heads, kv_heads = (int(x) for x in heads.split("/"))

        def tensor(count):
            # [batch, tokens, heads, dim] in memory, as ours.
            return torch.randn(1, int(tokens), count, int(dim), device="cuda", dtype=torch.bfloat16).transpose(1, 2)

        self.q, self.k, self.v = (tensor(n).requires_grad_() for n in (heads, kv_heads, kv_heads))
        self.dout = tensor(heads)
        self.options = {"is_causal": mask == "causal", "enable_gqa": kv_heads != heads}

    def run(self):
        """Seconds forward and backward."""
        for x in (self.q, self.k, self.v):
            x.grad = None
        events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        events[0].record()
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            out = torch.nn.functional.scaled_dot_product_attention(self.q, self.k, self.v, **self.options)
        events[1].record()
        torch.cuda.synchronize()
        events[2].record()
        torch.autograd.grad(out, (self.q, self.k, self.v), self.dout)
        events[3].record()
        torch.cuda.synchronize()
        return events[0].elapsed_time(events[1]) / 1e3, events[2].elapsed_time(events[3]) / 1e3


class Ours:
    def __init__(self, bench, deterministic):
        command = [bench, "--on-request"] + (["--deterministic"] if deterministic else [])
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def ask(self, text):
        self.say(text)
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit("the bench ended")
        return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--deterministic", action="store_true", help="ours in fixed order")
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    args = parser.parse_intermixed_args()
    torch.manual_seed(1)
    ours = Ours(args.bench, args.deterministic)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}; "
          f"TFLOP/s, medians of {args.rounds}; ratio: ours over cuDNN")
    print(f"{'shape':24s} {'forward':>8s} {'merged':>8s} {'cuDNN':>8s} {'ratio':>6s}   "
          f"{'backward':>8s} {'cuDNN':>8s} {'ratio':>6s}")
    for shape in args.shapes or SHAPES:
        ours.say(f"shape {shape}")
        try:
            peer = Peer(shape)
            peer.run()
        except RuntimeError as error:
            print(f"{shape}: cuDNN does not take it: {error}".splitlines()[0])
            peer = None
        times = {name: [] for name in ("forward", "merged", "backward", "peer forward", "peer backward")}
        for round in range(-2, args.rounds):
            flops, *seconds = (float(x) for x in ours.ask("go"))
            theirs = peer.run() if peer else (float("nan"),) * 2
            if round >= 0:
                for name, value in zip(times, (*seconds, *theirs)):
                    times[name].append(value)
        work = {name: flops * (2.5 if "backward" in name else 1) / 1e12 for name in times}
        rate = {name: work[name] / statistics.median(values) for name, values in times.items()}
        print(f"{shape:24s} {rate['forward']:8.1f} {rate['merged']:8.1f} {rate['peer forward']:8.1f} "
              f"{rate['forward'] / rate['peer forward']:6.2f}   {rate['backward']:8.1f} {rate['peer backward']:8.1f} "
              f"{rate['backward'] / rate['peer backward']:6.2f}", flush=True)
        del peer
        torch.cuda.empty_cache()
    print("ours ran on", *ours.ask("kernel"))


if __name__ == "__main__":
    main()
