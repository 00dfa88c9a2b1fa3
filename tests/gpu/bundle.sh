#!/usr/bin/env bash
# usage: tests/gpu/bundle.sh BUILD OUT
# Copies what tests/gpu/run.sh needs into the folder OUT: test binaries, the service, the plug-in for GPUs, and the
# shared libraries beside them (not glibc, libstdc++, CUDA or NCCL: the machine with the GPU has its own). So a machine
# without a compiler, gRPC or UCX can run the tests. Where OUT ends in .tar.xz, all of that is packed into it (25 MB),
# as a folder called bundle.
# Examples: tests/gpu/bundle.sh build /tmp/bundle && /tmp/bundle/run.sh --part kernels
#           tests/gpu/bundle.sh build /tmp/bundle.tar.xz
set -euo pipefail
case "${1:-}" in
  -h | --help) sed -n '2,/^set /s/^# \?//p' "$0"; exit 0 ;;
  -*) echo "tests/gpu/bundle.sh: no flag is called '$1' (--help)" >&2; exit 2 ;;
esac
[ $# = 2 ] || { echo "tests/gpu/bundle.sh: needs BUILD and OUT (--help)" >&2; exit 2; }
build=$1 out=$2
[ -d "$build/tests" ] || { echo "tests/gpu/bundle.sh: $build is no build folder: it has no tests/" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
packed=
case "$out" in
  *.tar.xz)
    packed=$out out=$(mktemp -d)/bundle
    trap 'rm -rf "$(dirname "$out")"' EXIT
    ;;
esac
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
cp "$here/run.sh" "$here/shards.sh" "$here/service.sh" "$here/cudnn.sh" "$here/faults.py" "$here/longest.py" "$here/tests.txt" "$here"/../bench/gpu_*_peer.py \
  "$here/../bench/bench_process.py" "$out/"
# What bfloat16 attention can run on, what it does first.
{
  for arch in sm90 sm100; do
    if grep -q "/$arch-[0-9a-f]*/libseqpar_fa4" "$build/build.ninja"; then echo "fa4_$arch"; fi
  done
  if grep -q cudnn_graphs.cc "$build/build.ninja"; then echo cudnn; fi
  echo tiled_float32
} >"$out/attention.txt"
[ -z "$packed" ] || XZ_OPT=-T0 tar cJf "$packed" -C "$(dirname "$out")" bundle
du -sh "${packed:-$out}"
