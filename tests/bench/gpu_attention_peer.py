#!/usr/bin/env python3
"""Our attention on a GPU against others, in one run: PyTorch's scaled_dot_product_attention by cuDNN, and
FlashAttention-4's own package where it is installed.

    gpu_attention_peer.py BENCH [--rounds N] [--deterministic] [--kernels] [SHAPE...]

BENCH is the gpu_kernels_bench binary; a shape is HEAD_DIM:TOKENS:full|causal:HEADS/KV_HEADS, bfloat16, batch 1. Rounds
are interleaved, each in another order, one call timed by events from launch to finish; the table shows medians, and
results of bfloat16, ours as the others'. The last columns are our rates of a ring's steps, whose results are float32:
"first" gives partial results, "merged" merges them into partial results that are there, "added" adds dQ, dK and dV to
sums and "alone" does not, timed by themselves in each round. --kernels adds each kernel of a backward pass, ours by CUPTI's records and the
others' by PyTorch's profiler. Example:

    gpu_attention_peer.py build/bench/gpu_kernels_bench 128:8192:causal:32/8
"""

import argparse
import statistics

from bench_process import BenchProcess, shuffled

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


def kernels_of(peer):
    """(name, microseconds) of each kernel of its backward pass."""
    out = peer.attention(peer.q, peer.k, peer.v, *peer.mask)
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.autograd.grad(out, (peer.q, peer.k, peer.v), peer.dout)
        torch.cuda.synchronize()
    times = [(event.key[:60].replace(" ", "_"), event.self_device_time_total) for event in profile.key_averages()]
    return sorted((one for one in times if one[1] > 0), key=lambda one: -one[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--deterministic", action="store_true", help="ours in fixed order")
    parser.add_argument("--kernels", action="store_true", help="the times of a backward pass's kernels, too")
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
    print(f"{'shape':24s} {'forward':>8s}{names} {'ratio':>6s}   {'backward':>8s}{names} {'ratio':>6s}   "
          f"{'first':>8s} {'merged':>8s}   {'alone':>8s} {'added':>8s}")
    for shape in args.shapes or SHAPES:
        ours.say(f"shape {shape}")
        running = {name: Peer(shape, attention) for name, attention in others.items()}
        mine, theirs = [[] for _ in range(6)], {name: ([], []) for name in others}
        for round in range(-2, args.rounds):
            times = {}
            for name in shuffled(["go", "steps", *running], round):
                times[name] = [float(x) for x in ours.ask(name)] if name in ("go", "steps") else running[name].run()
            flops, *seconds = times["go"] + times["steps"]
            if round < 0:
                continue
            for values, value in zip(mine, seconds, strict=True):
                values.append(value)
            for name in others:
                for values, value in zip(theirs[name], times[name]):
                    values.append(value)

        def rate(values, work):
            return work * flops / 1e12 / statistics.median(values)

        forward, backward, first, merged, alone, added = (
            rate(values, work) for values, work in zip(mine, (1, 2.5, 1, 1, 2.5, 2.5), strict=True))
        line = f"{shape:24s}"
        for side, work, own in ((0, 1, forward), (1, 2.5, backward)):
            rates = [rate(theirs[name][side], work) for name in others]
            line += ("   " if side else " ") + f"{own:8.1f}"
            line += "".join(f"{value:8.1f}" for value in rates) + f" {own / max(rates):6.2f}"
        print(f"{line}   {first:8.1f} {merged:8.1f}   {alone:8.1f} {added:8.1f}", flush=True)
        if args.kernels:
            rows = {}
            for name, request in (("ours", "times"), ("added", "step_times")):
                words = ours.ask(request)
                rows[name] = list(zip(words[::2], words[1::2]))
            rows.update((name, kernels_of(peer)) for name, peer in running.items())
            for name, times in rows.items():
                for kernel, us in times:
                    print(f"    {name:8s} {float(us) / 1e3 if kernel != 'none' else float('nan'):9.3f} ms  {kernel}")
        del running
        torch.cuda.empty_cache()
    print("ours ran on", *ours.ask("kernel"))


if __name__ == "__main__":
    main()
