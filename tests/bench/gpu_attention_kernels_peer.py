#!/usr/bin/env python3
"""Our kernels of attention on a GPU against one another, in one run.

    gpu_attention_kernels_peer.py BENCH [--rounds N] [--kernels NAME,...] [--deterministic] [SHAPE...]

BENCH is the gpu_kernels_bench binary, of which one process a kernel runs; a shape is
HEAD_DIM:TOKENS:full|causal:HEADS/KV_HEADS, bfloat16, batch 1. Rounds are interleaved, each in another order; the
table shows medians in TFLOP/s: forward, backward, and forward merged into partial results that are there. A kernel that does
not serve a shape leaves it to our own, and the last column of each says what ran. Example:

    gpu_attention_kernels_peer.py build/bench/gpu_kernels_bench --kernels cudnn,tiled_float32 80:8192:causal:32/8
"""

import argparse
import statistics

from bench_process import BenchProcess, shuffled

SHAPES = ["128:8192:causal:32/32", "128:32768:causal:32/8", "64:8192:full:32/32", "80:8192:causal:32/8"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kernels", default="fa4_sm90,cudnn,tiled_float32")
    parser.add_argument("--deterministic", action="store_true", help="in fixed order")
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    args = parser.parse_intermixed_args()
    kernels = args.kernels.split(",")
    print(f"TFLOP/s, medians of {args.rounds}{', in fixed order' if args.deterministic else ''}")
    print(f"{'shape':24s} {'kernel':14s} {'forward':>8s} {'backward':>8s} {'merged':>8s}  ran on")
    for shape in args.shapes or SHAPES:
        benches = {kernel: BenchProcess(args.bench, args.deterministic, kernel) for kernel in kernels}
        for bench in benches.values():
            bench.say(f"shape {shape}")
        times = {kernel: [] for kernel in kernels}
        for turn in range(-1, args.rounds):
            for kernel in shuffled(kernels, turn):
                answer = [float(x) for word in ("go", "steps") for x in benches[kernel].ask(word)]
                if turn >= 0:
                    times[kernel].append(answer)
        for kernel in kernels:
            flops = times[kernel][0][0]
            rates = [work * flops / 1e12 / statistics.median(row[column] for row in times[kernel])
                     for column, work in ((1, 1), (2, 2.5), (4, 1))]
            ran = " ".join(benches[kernel].ask("kernel"))
            print(f"{shape:24s} {kernel:14s} {rates[0]:8.1f} {rates[1]:8.1f} {rates[2]:8.1f}  {ran}", flush=True)
        for bench in benches.values():
            bench.process.stdin.close()
            bench.process.wait()


if __name__ == "__main__":
    main()
