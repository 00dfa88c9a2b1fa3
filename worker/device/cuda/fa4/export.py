#!/usr/bin/env python3
"""Compiles FlashAttention-4's attention kernels ahead of time. Needs neither a GPU nor a driver.

  export.py --out DIR [--arch 90|100] [--jobs N] [--only REGEX] [--list]

Writes DIR/libseqpar_fa4.a, the kernels of one architecture with the part of the DSL's runtime that they call, and
DIR/fa4_table.inc, which worker/device/cuda/fa4_kernels.cc includes. Packages: requirements.txt beside this file.
Examples:

  export.py --out /tmp/fa4 --only 'd128_causal' --jobs 2
  export.py --out /tmp/fa4_sm100 --arch 100
"""

import argparse
import concurrent.futures
import importlib
import multiprocessing
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HEAD_DIMS = (64, 96, 128)
# By architecture; 90 is sm_90a. For sm_100a no more than runs cannot do without: a window serves causal runs too, and
# partial results are merged outside.
MASKS = {90: ("full", "causal", "window"), 100: ("full", "window")}
KINDS = {90: ("forward", "merge", "backward", "backward_fixed"), 100: ("forward", "backward", "backward_fixed")}
PREFIXES = {90: "seqpar_fa4", 100: "seqpar_fa4_sm100"}


def forward_tile(head_dim, mask):
    """FlashAttention-4's own choice for sm_90 (interface._tile_size_fwd_sm90)."""
    if head_dim == 64:
        return dict(tile_m=192, tile_n=128, mma_pv_is_rs=True)
    if head_dim == 96:
        return dict(tile_m=192, tile_n=144 if mask == "full" else 128, mma_pv_is_rs=False)
    return dict(tile_m=128, tile_n=128, mma_pv_is_rs=True)


def backward_tile(head_dim, mask):
    """Likewise (interface._tile_size_bwd_sm90). What dQ's sums look like follows from it: fa4_sums.cu."""
    if head_dim == 64:
        return dict(tile_m=128, AtomLayoutMdQ=2)
    if head_dim == 96:
        return dict(tile_m=64, AtomLayoutMdQ=1, dQ_single_wg=True)
    if mask == "full":
        return dict(tile_m=80, AtomLayoutMdQ=1, dQ_swapAB=True)
    return dict(tile_m=64, AtomLayoutMdQ=1)


class Variant:
    """One kernel. kind: forward (O, LSE written), merge (merged), backward, backward_fixed (in fixed order)."""

    def __init__(self, arch, kind, head_dim, mask):
        self.arch, self.kind, self.head_dim, self.mask = arch, kind, head_dim, mask
        self.name = f"{PREFIXES[arch]}_{kind}_d{head_dim}_{mask}"

    @property
    def backward(self):
        return self.kind.startswith("backward")

    def tile(self):
        if self.arch == 100:  # the package's only choice; forward two at a time
            return dict(tile_m=128 if self.backward else 256, tile_n=128)
        return (backward_tile if self.backward else forward_tile)(self.head_dim, self.mask)

    def table_row(self, entry):
        kind = {"forward": "kForward", "merge": "kMerge", "backward": "kBackward", "backward_fixed": "kBackwardFixed"}
        mask = {"full": "kFull", "causal": "kCausal", "window": "kWindow"}
        return (f"SEQPAR_FA4_KERNEL({self.name}, {entry}, {self.arch}, {kind[self.kind]}, {self.head_dim}, "
                f"{mask[self.mask]}, {self.tile()['tile_m']})")


def all_variants(arch):
    for head_dim in HEAD_DIMS:
        for mask in MASKS[arch]:
            for kind in KINDS[arch]:
                yield Variant(arch, kind, head_dim, mask)


class Compiler:
    """Of one process and architecture: the imports take seconds."""

    def __init__(self, arch):
        os.environ["CUTE_DSL_ARCH"] = f"sm_{arch}a"
        os.environ["FLASH_ATTENTION_ARCH"] = f"sm_{arch}"
        sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
        import kernel_modules  # noqa: F401  (makes the imports below light)
        import cutlass
        import cutlass.cute as cute

        self.cutlass, self.cute = cutlass, cute
        self.kernels = importlib.import_module({90: "ring_kernels", 100: "ring_kernels_sm100"}[arch])

    def tensor(self, dtype, shape, last=1, align=16):
        """Strides are read at run time, but for the last where it is given; they are multiples of `align` bytes."""
        vector = max(align * 8 // dtype.width, 1)
        strides = [self.cute.sym_int64(divisibility=vector) for _ in shape[:-1]]
        strides.append(last if last is not None else self.cute.sym_int64(divisibility=vector))
        return self.cute.runtime.make_fake_tensor(dtype, tuple(shape), stride=tuple(strides), assumed_align=align)

    def extents(self, count):
        return [self.cute.sym_int() for _ in range(count)]

    def compile(self, variant):
        operands, run = (self.backward if variant.backward else self.forward)(variant)
        return self.cute.compile(run, *operands, self.cute.runtime.make_fake_stream())

    @staticmethod
    def takes_rounded(variant):
        """Whether its results may be asked for in bfloat16: what merges has them in float32."""
        return variant.arch == 90 and variant.kind != "merge"

    def forward_kernel(self, variant):
        local, d = variant.mask == "window", variant.head_dim
        if variant.arch == 100:
            return self.kernels.SplitForward(d, is_local=local)
        return self.kernels.RingForward(
            self.cutlass.BFloat16, d, d, 1, merge=variant.kind == "merge", is_causal=variant.mask == "causal",
            is_local=local, pack_gqa=False, num_stages=2, num_threads=384, Q_in_regs=False, intra_wg_overlap=True,
            **variant.tile())

    def backward_kernel(self, variant):
        local, d, fixed = variant.mask == "window", variant.head_dim, variant.kind == "backward_fixed"
        if variant.arch == 100:
            return self.kernels.RingBackwardSm100(d, is_local=local, deterministic=fixed, **variant.tile())
        return self.kernels.RingBackward(
            self.cutlass.BFloat16, d, is_causal=variant.mask == "causal", is_local=local, deterministic=fixed,
            tile_n=128, Q_stage=2, dO_stage=2, PdS_stage=2, SdP_swapAB=True, dKV_swapAB=False, AtomLayoutMSdP=1,
            AtomLayoutNdKV=2, num_threads=384, **variant.tile())

    def forward(self, variant):
        cutlass, cute = self.cutlass, self.cute
        bf16, f32, i32 = cutlass.BFloat16, cutlass.Float32, cutlass.Int32
        local, d, op = variant.mask == "window", variant.head_dim, self.forward_kernel(variant)
        b, sq, sk, h = self.extents(4)
        q, k, v = (self.tensor(bf16, (b, s, h, d)) for s in (sq, sk, sk))
        o, lse = self.tensor(f32, (b, sq, h, d)), self.tensor(f32, (b, h, sq), last=None, align=4)
        Tensor, Float32, Int32 = cute.Tensor, f32, i32
        import cuda.bindings.driver as cuda
        from flash_attn.cute.utils import AuxData

        takes_rounded = self.takes_rounded(variant)

        @cute.jit
        def run(q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, scale: Float32, left: Int32, right: Int32,
                rounded: Int32, stream: cuda.CUstream):
            op(q, k, v, o, lse, scale, window_size_left=left if cutlass.const_expr(local) else None,
               window_size_right=right if cutlass.const_expr(local) else None,
               aux_data=AuxData(scalars=(rounded,) if cutlass.const_expr(takes_rounded) else None), stream=stream)

        return (q, k, v, o, lse, f32(1), i32(0), i32(0), i32(0)), run

    def backward(self, variant):
        cutlass, cute = self.cutlass, self.cute
        bf16, f32, i32 = cutlass.BFloat16, cutlass.Float32, cutlass.Int32
        local, d, fixed = variant.mask == "window", variant.head_dim, variant.kind == "backward_fixed"
        op = self.backward_kernel(variant)
        b, sq, sk, h, padded, sums, tiles, kv_tiles = self.extents(8)
        q, k, v, do = (self.tensor(bf16, (b, s, h, d)) for s in (sq, sk, sk, sq))
        lse, delta = self.tensor(f32, (b, h, padded)), self.tensor(f32, (b, h, padded))
        dq = self.tensor(f32, (b, h, sums))
        dk, dv = (self.tensor(f32, (b, h, sk), last=None) for _ in range(2))
        turns = self.tensor(i32, (b, h, tiles, 1), align=4)
        kv_turns = self.tensor(i32, (b, h, kv_tiles, 1), align=4)
        Tensor, Float32, Int32 = cute.Tensor, f32, i32
        import cuda.bindings.driver as cuda
        from flash_attn.cute.utils import AuxData

        takes_rounded = self.takes_rounded(variant)

        @cute.jit
        def run(q: Tensor, k: Tensor, v: Tensor, do: Tensor, lse: Tensor, delta: Tensor, dq: Tensor, dk: Tensor,
                dv: Tensor, turns: Tensor, kv_turns: Tensor, scale: Float32, left: Int32, right: Int32, rounded: Int32,
                shared: Int32, stream: cuda.CUstream):
            op(q, k, v, do, lse, delta, dq, dk, dv, scale,
               window_size_left=left if cutlass.const_expr(local) else None,
               window_size_right=right if cutlass.const_expr(local) else None,
               mdQ_semaphore=turns if cutlass.const_expr(fixed) else None,
               mdK_semaphore=kv_turns if cutlass.const_expr(fixed) else None,
               mdV_semaphore=kv_turns if cutlass.const_expr(fixed) else None,
               aux_data=AuxData(scalars=(rounded, shared) if cutlass.const_expr(takes_rounded) else None), stream=stream)

        return (q, k, v, do, lse, delta, dq, dk, dv, turns, kv_turns, f32(1), *(i32(0) for _ in range(4))), run


_compiler = None


def export(variant, folder):
    """Writes folder/NAME.o; the variant's row of the table."""
    global _compiler
    if _compiler is None:
        _compiler = Compiler(variant.arch)
    start = time.time()
    _compiler.compile(variant).export_to_c(str(folder), variant.name)
    header = folder / (variant.name + ".h")
    entry = re.search(r"_mlir_\w+__mlir_ciface_\w+", header.read_text()).group(0)
    header.unlink()
    size = (folder / (variant.name + ".o")).stat().st_size
    print(f"{variant.name}: {time.time() - start:.1f} s, {size} bytes", flush=True)
    return variant.table_row(entry)


def runtime_archive():
    """The DSL's static runtime, which the objects call to load and launch."""
    command = [sys.executable, "-m", "cutlass.cute.export.aot_config", "--libdir"]
    folder = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
    return pathlib.Path(folder) / "libcuda_dialect_runtime_static.a"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="folder to write to")
    parser.add_argument("--arch", type=int, choices=sorted(KINDS), default=90, help="90: sm_90a, 100: sm_100a")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--only", default="", help="kernels whose name matches")
    parser.add_argument("--list", action="store_true", help="print the kernels' names and stop")
    args = parser.parse_args()
    variants = [v for v in all_variants(args.arch) if re.search(args.only, v.name)]
    if args.list:
        print("\n".join(v.name for v in variants))
        return
    if args.out is None:
        parser.error("--out is missing")
    # Whole or not at all: a folder that is there is complete.
    building = args.out.with_name(args.out.name + f".building-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        rows = list(pool.map(export, variants, [building] * len(variants)))
    (building / "fa4_table.inc").write_text("\n".join(rows) + "\n")
    archive = building / "libseqpar_fa4.a"
    shutil.copy(runtime_archive(), archive)
    objects = sorted(building.glob("*.o"))
    subprocess.run(["ar", "rcs", str(archive), *map(str, objects)], check=True)
    for path in objects:
        path.unlink()
    shutil.rmtree(args.out, ignore_errors=True)
    building.rename(args.out)


if __name__ == "__main__":
    main()
