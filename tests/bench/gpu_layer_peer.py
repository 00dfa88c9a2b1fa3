#!/usr/bin/env python3
"""One transformer layer of ours on a GPU, forward and backward, against the same layer in PyTorch under torch.compile,
in one run: D 4096, 32 heads over 8 KV heads of 128, SwiGLU 14336, RMSNorm, rotary embedding, causal, bfloat16.

    gpu_layer_peer.py BENCH [--rounds N] [--deterministic] [TOKENS ...]      (default 8192 32768 131072)

BENCH is the gpu_layer_bench binary. Of PyTorch's own attention the better of cuDNN's and its flash kernel is taken, by
a look at each. Rounds are interleaved, and another one begins each: ours, PyTorch's, and the layer's largest product by
itself, each so many times in a row that it lasts --seconds, timed by events from launch to finish. The table shows
medians; "of products" is the layer's rate over that of the product in the same rounds, "memory" the peak of what each
process allocated (ours with the scratch of its kernels), "gaps" those of our compute stream longer than 50 us in one
forward and backward, by CUPTI's records. Ours sums the gradients of weights in float32, PyTorch in bfloat16. Example:

    gpu_layer_peer.py build/bench/gpu_layer_bench --rounds 5 32768
"""

import argparse
import statistics

from bench_process import BenchProcess, shuffled

try:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ModuleNotFoundError:
    torch = None  # --help needs none

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INNER, THETA = 4096, 32, 8, 128, 14336, 500_000.0


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Layer(torch.nn.Module if torch else object):
    def __init__(self, backend):
        super().__init__()
        self.backend = backend

        def linear(inputs, outputs):
            return torch.nn.Linear(inputs, outputs, bias=False, device="cuda", dtype=torch.bfloat16)

        def norm():
            return torch.nn.RMSNorm(HIDDEN, eps=1e-5, device="cuda", dtype=torch.bfloat16)

        self.norms = torch.nn.ModuleList([norm(), norm()])
        self.q, self.k, self.v = (linear(HIDDEN, heads * HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
        self.o, self.gate, self.up, self.down = (
            linear(HEADS * HEAD_DIM, HIDDEN), linear(HIDDEN, INNER), linear(HIDDEN, INNER), linear(INNER, HIDDEN))

    def forward(self, x, cos, sin):
        normed = self.norms[0](x)
        q, k, v = (p(normed).view(1, x.shape[1], -1, HEAD_DIM).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        with sdpa_kernel(self.backend):
            attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(attended.transpose(1, 2).reshape(x.shape))
        normed = self.norms[1](x)
        return x + self.down(torch.nn.functional.silu(self.gate(normed)) * self.up(normed))


class Peer:
    """PyTorch's layer for a length."""

    def __init__(self, tokens, backend):
        torch.manual_seed(1)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.layer = Layer(backend)
        self.compiled = torch.compile(self.layer, dynamic=False)
        self.x = torch.randn(1, tokens, HIDDEN, device="cuda", dtype=torch.bfloat16).requires_grad_()
        self.dy = torch.randn_like(self.x)
        exponents = torch.arange(0, HEAD_DIM, 2, device="cuda", dtype=torch.float32) / HEAD_DIM
        angles = torch.arange(tokens, device="cuda", dtype=torch.float32)[:, None] / THETA**exponents
        angles = torch.cat((angles, angles), dim=-1)
        self.table = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)

    def step(self):
        self.layer.zero_grad(set_to_none=True)
        self.x.grad = None
        self.compiled(self.x, *self.table).backward(self.dy)

    def seconds(self, steps):
        """Of a step, the mean of so many."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda.synchronize()
        events[0].record()
        for _ in range(steps):
            self.step()
        events[1].record()
        torch.cuda.synchronize()
        return events[0].elapsed_time(events[1]) / 1e3 / steps

    def memory(self):
        return torch.cuda.max_memory_allocated()


def better_peer(tokens):
    """(name, peer, seconds a step) with the faster attention."""
    best = None
    for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        torch._dynamo.reset()
        peer = Peer(tokens, backend)
        peer.seconds(1)
        seconds = min(peer.seconds(1) for _ in range(2))
        if best is None or seconds < best[2]:
            best = name, backend, seconds
        del peer
    torch._dynamo.reset()
    peer = Peer(tokens, best[1])
    peer.seconds(2)
    return best[0], peer, best[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each visit")
    parser.add_argument("--deterministic", action="store_true", help="ours in fixed order")
    parser.add_argument("sizes", nargs="*", metavar="TOKENS[:RECOMPUTE]", default=["8192", "32768", "131072", "131072:mlp"],
                        help="RECOMPUTE is what ours makes again in backward: none, mlp, attention or layer")
    args = parser.parse_intermixed_args()
    if torch is None:
        parser.error("needs a Python that has PyTorch")
    ours = BenchProcess(args.bench, args.deterministic)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}; "
          f"medians of {args.rounds}; ratio: PyTorch's time over ours")
    print(f"{'tokens':>11s} {'ours':>9s} {'TFLOP/s':>8s} {'of products':>11s} {'PyTorch':>9s} {'TFLOP/s':>8s} {'ratio':>6s} "
          f"{'product':>8s} {'memory':>10s} {'PyTorch':>10s}")
    for size in args.sizes:
        tokens = int(size.partition(":")[0])
        ours.say(f"tokens {size}")
        first = float(ours.ask("go 2")[0])
        memory, flops = int(ours.ask("memory")[0]), float(ours.ask("flops")[0])
        name, peer, seconds = better_peer(tokens)
        steps = max(1, round(args.seconds / min(seconds, first)))
        products = max(1, round(args.seconds * 650e12 / (2.0 * tokens * HIDDEN * INNER)))
        visits = {
            "ours": lambda: float(ours.ask(f"go {steps}")[0]),
            "peer": lambda: peer.seconds(steps),
            "product": lambda: float(ours.ask(f"product {products}")[0]),
        }
        seen = {visit: [] for visit in visits}
        for turn in range(-1, args.rounds):
            for visit in shuffled(visits, turn):
                value = visits[visit]()
                if turn >= 0:
                    seen[visit].append(value)
        mine, theirs, product = (statistics.median(seen[visit]) for visit in ("ours", "peer", "product"))
        print(f"{size:>11s} {mine * 1e3:6.2f} ms {flops / mine / 1e12:8.1f} {flops / mine / product:11.3f} "
              f"{theirs * 1e3:6.2f} ms {flops / theirs / 1e12:8.1f} {theirs / mine:6.3f} {product / 1e12:8.1f} "
              f"{memory / 2**30:6.2f} GiB {peer.memory() / 2**30:6.2f} GiB  with {name}", flush=True)
        gaps = ours.ask("gaps")
        if gaps[0] == "none":
            print("        no records of gaps:", *gaps[1:])
        else:
            for what, values in (("after another step", gaps[:6]), ("from idle", gaps[6:])):
                longer, longest, idle, operations, after, before = values
                print(f"        gaps, {what}: {longer} longer than 50 us among {operations} operations, "
                      f"idle {100 * float(idle):.3f} %, longest {float(longest):.1f} us after {after} before {before}",
                      flush=True)
        ours.say("none")
        del peer, visits
        torch.cuda.empty_cache()
    print("ours ran on", *ours.ask("kernel"))


if __name__ == "__main__":
    main()
