#!/usr/bin/env python3
"""Our attention on a GPU against others, in one run: PyTorch's scaled_dot_product_attention by cuDNN, and
FlashAttention-4's own package where it is installed.

    gpu_attention_peer.py BENCH [--rounds N] [--deterministic] [SHAPE...]

BENCH is the gpu_kernels_bench binary; a shape is HEAD_DIM:TOKENS:full|causal:HEADS/KV_HEADS, bfloat16, batch 1. Rounds
are interleaved, another one begins each, one call timed by events from launch to finish; the table shows medians. Ours
gives float32 partial results (O, and sums that dQ, dK and dV are added to), the others bfloat16 ones; "merged" is our
forward pass into partial results that are there, as a step of a ring, first and last in turn with the one that is not.
Example:

    gpu_attention_peer.py build/bench/gpu_kernels_bench 128:8192:causal:32/8
"""

import argparse
import statistics

from bench_process import BenchProcess, rotated

try:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ModuleNotFoundError:
    torch = None  # --help needs none

SHAPES = [
    f"{dim}:{tokens}:{mask}:{heads}"
    for tokens in (8192, 32768)
    for dim in (64, 128)
    for mask in ("causal", "full")
    for heads in ("32/32", "32/8")
] + ["96:8192:causal:32/32", "128:8191:causal:32/32", "128:10007:full:32/8", "128:131072:causal:32/8"]


def by_cudnn(q, k, v, causal, grouped):
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return torch.nn.functional.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal, enable_gqa=grouped
        ).transpose(1, 2)


def peers():
    """Name -> function of q, k, v [batch, tokens, heads, dim]."""
    found = {"cuDNN": by_cudnn}
    try:
        from flash_attn.cute import flash_attn_func
    except ImportError:
        return found

    def by_fa4(q, k, v, causal, grouped):
        out = flash_attn_func(q, k, v, causal=causal)
        return out[0] if isinstance(out, tuple) else out

    found["FA4"] = by_fa4
    return found


class Peer:
    def __init__(self, shape, attention):
        self.attention = attention
        dim, tokens, mask, heads = shape.split(":")
        heads, kv_heads = (int(x) for x in heads.split("/"))

        def tensor(count):
            return torch.randn(1, int(tokens), count, int(dim), device="cuda", dtype=torch.bfloat16)

        self.q, self.k, self.v = (tensor(n).requires_grad_() for n in (heads, kv_heads, kv_heads))
        self.dout = tensor(heads)
        self.mask = mask == "causal", kv_heads != heads

    def run(self):
        """Seconds forward and backward."""
        for x in (self.q, self.k, self.v):
            x.grad = None
        events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        events[0].record()
        out = self.attention(self.q, self.k, self.v, *self.mask)
        events[1].record()
        torch.cuda.synchronize()
        events[2].record()
        torch.autograd.grad(out, (self.q, self.k, self.v), self.dout)
        events[3].record()
        torch.cuda.synchronize()
        return events[0].elapsed_time(events[1]) / 1e3, events[2].elapsed_time(events[3]) / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--deterministic", action="store_true", help="ours in fixed order")
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    args = parser.parse_intermixed_args()
    if torch is None:
        parser.error("needs a Python that has PyTorch")
    torch.manual_seed(1)
    ours = BenchProcess(args.bench, args.deterministic)
    others = peers()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}; "
          f"TFLOP/s, medians of {args.rounds}; ratio: ours over the best of the others")
    names = "".join(f"{name:>8s}" for name in others)
    print(f"{'shape':24s} {'forward':>8s} {'merged':>8s}{names} {'ratio':>6s}   {'backward':>8s}{names} {'ratio':>6s}")
    for shape in args.shapes or SHAPES:
        ours.say(f"shape {shape}")
        running = {name: Peer(shape, attention) for name, attention in others.items()}
        mine, theirs = ([], [], []), {name: ([], []) for name in others}
        for round in range(-2, args.rounds):
            times = {}
            for name in rotated(["ours", *running], round):
                times[name] = [float(x) for x in ours.ask("go")] if name == "ours" else running[name].run()
            flops, *seconds = times["ours"]
            if round < 0:
                continue
            for values, value in zip(mine, seconds):
                values.append(value)
            for name in others:
                for values, value in zip(theirs[name], times[name]):
                    values.append(value)

        def rate(values, work):
            return work * flops / 1e12 / statistics.median(values)

        forward, merged, backward = rate(mine[0], 1), rate(mine[1], 1), rate(mine[2], 2.5)
        line = f"{shape:24s} {forward:8.1f} {merged:8.1f}"
        for side, work, own in ((0, 1, forward), (1, 2.5, backward)):
            rates = [rate(theirs[name][side], work) for name in others]
            line += f"   {own:8.1f}" if side else ""
            line += "".join(f"{value:8.1f}" for value in rates) + f" {own / max(rates):6.2f}"
        print(line, flush=True)
        del running
        torch.cuda.empty_cache()
    print("ours ran on", *ours.ask("kernel"))


if __name__ == "__main__":
    main()
