#!/usr/bin/env python3
"""Checks that what fa4/export.py compiles is what the C++ around it expects: needs none of the packages.

usage: fa4_export.py ROOT
"""
import importlib.util
import pathlib
import re
import sys

KERNELS_MAX = 60


def check(folder: pathlib.Path):
    spec = importlib.util.spec_from_file_location("export", folder / "fa4/export.py")
    export = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(export)
    variants = [v for arch in sorted(export.KINDS) for v in export.all_variants(arch)]
    names = {v.name for v in variants}
    if len(names) != len(variants):
        yield "two kernels of one name"
    if len(variants) > KERNELS_MAX:
        yield f"{len(variants)} kernels; at most {KERNELS_MAX}"
    header = (folder / "fa4_kernels.h").read_text()
    kinds = re.search(r"enum class Fa4Kind \{([^}]*)\}", header).group(1).split(", ")
    masks = re.search(r"enum class Fa4Mask \{([^}]*)\}", header).group(1).split(", ")
    # What fa4_attention.cc does without, by architecture.
    missing_kinds, missing_masks = {"90": set(), "100": {"kMerge"}}, {"90": set(), "100": {"kCausal"}}
    rows = [re.search(r"(\d+), (k\w+), (\d+), (k\w+), (\d+)\)", v.table_row("entry")).groups() for v in variants]
    for arch in missing_kinds:
        wanted = {(kind.strip(), str(dim), mask.strip()) for kind in kinds for dim in export.HEAD_DIMS for mask in masks
                  if kind.strip() not in missing_kinds[arch] and mask.strip() not in missing_masks[arch]}
        if {row[1:4] for row in rows if row[0] == arch} != wanted:
            yield f"sm_{arch}: not every kind, head dimension and mask has its kernel"
    table = (folder / "attention_table.h").read_text()
    served = re.findall(r"\{(\d+), (\d+), DType::kBF16, (\d+), (\d+), (\d+), MaskShape::\w+, "
                        r"AttentionKernel::kFa4Sm(\d+)\}", table)
    if sorted(int(row[0]) for row in served) != sorted(export.KINDS):
        yield "attention_table.h has other architectures"
    for first, last, low, high, step, arch in served:
        if not first == last == arch:
            yield f"attention_table.h: fa4_sm{arch} is for capabilities {first} to {last}"
        if tuple(range(int(low), int(high) + 1, int(step))) != export.HEAD_DIMS:
            yield f"attention_table.h: fa4_sm{arch} has other head dimensions"
    sums = (folder / "fa4_sums.cu").read_text()
    known = {(int(d), int(m)) for d, m in re.findall(r"head_dim == (\d+) && from\.tile_m == (\d+)", sums)}
    made = {arch: {(int(dim), int(tile)) for of, kind, dim, _, tile in rows if of == arch and "Backward" in kind}
            for arch in missing_kinds}
    if known != made["90"]:
        yield f"fa4_sums.cu puts {sorted(known)} in order, the kernels make {sorted(made['90'])}"
    known = {(int(d), 128) for d in re.findall(r"AddRows<(\d+)><<<", sums)}
    if known != made["100"]:
        yield f"fa4_sums.cu adds rows of {sorted(known)}, the kernels make {sorted(made['100'])}"


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    errors = list(check(pathlib.Path(sys.argv[1]) / "worker/device/cuda"))
    for error in errors:
        print(f"worker/device/cuda/fa4/export.py: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
