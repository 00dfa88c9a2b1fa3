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
    variants = list(export.all_variants())
    names = {v.name for v in variants}
    if len(names) != len(variants):
        yield "two kernels of one name"
    if len(variants) > KERNELS_MAX:
        yield f"{len(variants)} kernels; at most {KERNELS_MAX}"
    header = (folder / "fa4_kernels.h").read_text()
    kinds = re.search(r"enum class Fa4Kind \{([^}]*)\}", header).group(1).split(", ")
    masks = re.search(r"enum class Fa4Mask \{([^}]*)\}", header).group(1).split(", ")
    rows = [re.search(r"(k\w+), (\d+), (k\w+), (\d+)\)", v.table_row("entry")).groups() for v in variants]
    wanted = {(kind.strip(), str(dim), mask.strip()) for kind in kinds for dim in export.HEAD_DIMS for mask in masks}
    if {row[:3] for row in rows} != wanted:
        yield "not every kind, head dimension and mask has its kernel"
    table = (folder / "attention_table.h").read_text()
    low, high, step = (int(x) for x in re.search(r"DType::kBF16, (\d+), (\d+), (\d+), MaskShape", table).groups())
    if tuple(range(low, high + 1, step)) != export.HEAD_DIMS:
        yield "attention_table.h has other head dimensions"
    sums = (folder / "fa4_sums.cu").read_text()
    known = {(int(d), int(m)) for d, m in re.findall(r"head_dim == (\d+) && from\.tile_m == (\d+)", sums)}
    used = {(int(dim), int(tile)) for kind, dim, _, tile in rows if kind.startswith("kBackward")}
    if known != used:
        yield f"fa4_sums.cu puts {sorted(known)} in order, the kernels make {sorted(used)}"


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    errors = list(check(pathlib.Path(sys.argv[1]) / "worker/device/cuda"))
    for error in errors:
        print(f"worker/device/cuda/fa4/export.py: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
