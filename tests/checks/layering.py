#!/usr/bin/env python3
"""Checks who may include whom (docs/decisions.md, "Layers"): every rule here is a boundary of the design.

usage: layering.py ROOT
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)

# Folder -> folders of the project that its files may include. Longest prefix wins.
MAY_INCLUDE = {
    "common/base": ["common/base"],
    "common/metrics": ["common/base", "common/metrics"],
    "common/tensor": ["common/base", "common/tensor"],
    "common/parallel": ["common/base", "common/parallel"],
    "common/device": ["common/base", "common/tensor", "common/parallel", "common/device"],
    "common/comm": ["common/base", "common/tensor", "common/parallel", "common/device", "common/comm"],
    "common/attention": ["common/base", "common/tensor", "common/parallel", "common/device", "common/comm",
                         "common/job", "common/attention"],
    "common/layers": ["common/base", "common/tensor", "common/parallel", "common/device", "common/comm",
                      "common/job", "common/attention", "common/layers"],
    "common/rpc": ["common/base", "common/rpc"],
    "common/job": ["common/base", "common/tensor", "common/parallel", "common/device", "common/job", "seqpar/v1",
                   "google/rpc"],
    "coordinator": ["common", "coordinator", "seqpar/v1", "google/rpc", "grpc/health"],
    "worker": ["common", "worker", "seqpar/v1", "google/rpc", "grpc/health"],
    "client": ["common", "client", "seqpar/v1", "google/rpc", "grpc/health"],
    "tests": ["common", "coordinator", "worker", "client", "tests", "seqpar/v1", "google/rpc", "grpc/health",
              "grpc/reflection"],
}

# Header pattern -> the only folders where it may be included.
VENDORS = [
    (r"^(ucp|uct|ucs|ucm)/", ["worker/comm/ucx"]),
    (r"^nccl", ["worker/comm/nccl"]),
    (r"^(cuda|cublas|cudnn|nvml)[^/]*$", ["worker/device/cuda", "worker/comm/nccl"]),
    (r"^cupti[^/]*$", ["tests/bench/kernel_timeline"]),
    (r"^(oneapi/|dnnl)", ["worker/device/cpu"]),
    (r"^hwy/", ["worker/device/cpu"]),
    (r"^sqlite3", ["coordinator/store", "tests/coordinator/store"]),
    (r"^prometheus/", ["coordinator/metrics", "worker/metrics", "common/metrics"]),
    (r"^(civetweb|CivetServer)", ["common/metrics", "tests/common/metrics"]),
    (r"^(grpcpp/|grpc/|grpc\+\+)|\.grpc\.pb\.h$", [
        "common/rpc", "coordinator/api", "coordinator/fleet", "coordinator/main", "coordinator/server", "worker/daemon",
        "client/lib", "client/cli", "tests"]),
    (r"^openssl/", ["common/base/tls"]),
    (r"^yaml-cpp/", ["client", "tests/client"]),
]


def folder_of(path: str, table) -> str:
    best = ""
    for prefix in table:
        if (path == prefix or path.startswith(prefix + "/")) and len(prefix) > len(best):
            best = prefix
    return best


def check(root: pathlib.Path):
    errors = []
    tops = ("common", "coordinator", "worker", "client", "tests")
    files = sorted(p for top in tops for ext in ("*.h", "*.cc", "*.cu", "*.cuh")
                   for p in (root / top).rglob(ext) if ".venv" not in p.parts)
    for file in files:
        path = file.relative_to(root).as_posix()
        rule = folder_of(path, MAY_INCLUDE)
        if not rule:
            errors.append(f"{path}: no layering rule for this folder")
            continue
        for quote, header in INCLUDE.findall(file.read_text()):
            for pattern, homes in VENDORS:
                if re.search(pattern, header) and not any(
                        path.startswith(home) for home in homes + ["tests/conformance"]):
                    errors.append(f"{path}: includes {header}, which belongs to {', '.join(homes)}")
            top = header.split("/")[0]
            if quote == '"' and top in tops + ("seqpar", "google", "grpc"):
                allowed = MAY_INCLUDE[rule]
                if not any(header == a or header.startswith(a + "/") for a in allowed):
                    errors.append(f"{path}: includes {header}; {rule} may include {', '.join(allowed)}")
    if not files:
        errors.append(f"{root}: no sources found")
    return errors, len(files)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    errors, count = check(pathlib.Path(sys.argv[1]))
    for error in errors:
        print(error)
    print(f"{count} files, {len(errors)} violations")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
