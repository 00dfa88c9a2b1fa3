#!/usr/bin/env bash
# usage: tests/gpu/bundle.sh BUILD OUT
# Copies what tests/gpu/run.sh needs into the folder OUT: test binaries, the service, the plug-in for GPUs, and the
# shared libraries beside them (not glibc, libstdc++, CUDA or NCCL: the machine with the GPU has its own). So a machine
# without a compiler, gRPC or UCX can run the tests.
set -euo pipefail
build=${1:?build folder} out=${2:?output folder}
here=$(cd "$(dirname "$0")" && pwd)
skip='ld-linux|/lib(c|m|dl|rt|pthread|resolv|stdc\+\+|gcc_s)\.so|libcuda|libnccl|libcudnn|libcublas|libcudart'
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib/ucx"
for name in $(cat "$here/tests.txt"); do cp "$build/tests/$name" "$out/bin/"; done
for name in seqpar seqpar-coordinator seqpar-worker; do [ ! -e "$build/bin/$name" ] || cp "$build/bin/$name" "$out/bin/"; done
for bench in "$build"/bench/gpu_*; do [ ! -e "$bench" ] || cp "$bench" "$out/bin/"; done
cp "$build/lib/libseqpar-cuda.so" "$out/lib/"
for file in "$out"/bin/* "$out/lib/libseqpar-cuda.so"; do ldd "$file" | awk '/=> \//{print $3}'; done |
  sort -u | grep -vE "$skip" | while read -r file; do cp -L "$file" "$out/lib/"; done
cma=$(ldconfig -p | awk '/libucp\.so/{print $NF; exit}')
[ -z "$cma" ] || cp -L "$(dirname "$cma")"/ucx/libuct_cma.so.0 "$out/lib/ucx/"
strip --strip-unneeded "$out"/bin/* "$out"/lib/*.so*
cp "$here/run.sh" "$here/service.sh" "$here/cudnn.sh" "$here/faults.py" "$here/longest.py" "$here/tests.txt" "$here"/../bench/gpu_*_peer.py \
  "$here/../bench/bench_process.py" "$out/"
# What bfloat16 attention can run on, what it does first.
{
  if grep -q libseqpar_fa4 "$build/build.ninja"; then echo fa4_sm90; fi
  if grep -q cudnn_graphs.cc "$build/build.ninja"; then echo cudnn; fi
  echo tiled_float32
} >"$out/attention.txt"
du -sh "$out"
