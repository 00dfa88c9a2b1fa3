#!/usr/bin/env bash
# usage: tests/gpu/run.sh [--part kernels|sanitizer|races|strategies|nccl|bench|layer|peer|all] [--bundle DIR]
# Runs the tests and benches of the GPU backend on a machine with GPUs, from a bundle (tests/gpu/bundle.sh); prints as
# it goes and a table at the end. Each part ends within 8 minutes. Exit status: 0 where every test passed.
#   kernels     suites of the device, on every kernel        sanitizer  the same under compute-sanitizer's memcheck
#   races       the same under its racecheck, as far as each suite comes in 110 s
#   strategies  every mesh on this GPU's kernels             nccl       communicators over NCCL, a rank a GPU
#   bench       our kernels and layer, gaps included         layer      the layer against PyTorch's
#   peer        attention: our kernels against one another, and against PyTorch's and FlashAttention-4's own
# Example: tests/gpu/bundle.sh build /tmp/bundle && /tmp/bundle/run.sh --part kernels
set -uo pipefail
part=all
bundle=$(cd "$(dirname "$0")" && pwd)
while [ $# -gt 0 ]; do
  case "$1" in
    --part) part=$2; shift ;;
    --bundle) bundle=$2; shift ;;
    -h | --help) sed -n '2,/^set /s/^# \?//p' "$0"; exit 0 ;;
    *) echo "$1: not --part or --bundle" >&2; sed -n '2,/^set /s/^# \?//p' "$0" >&2; exit 2 ;;
  esac
  shift
done
case " kernels sanitizer races strategies nccl bench layer peer all " in
  *" $part "*) ;;
  *) echo "--part $part: not kernels, sanitizer, races, strategies, nccl, bench, layer, peer or all" >&2; exit 2 ;;
esac
export LD_LIBRARY_PATH=$bundle/lib:$bundle/lib/ucx${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export SEQPAR_CUDA_PLUGIN=$bundle/lib/libseqpar-cuda.so
# What the bundle's attention runs on, and what it can be made to.
kernels=$(tr '\n' , <"$bundle/attention.txt")
kernels=${kernels%,}
. "$bundle/cudnn.sh" || kernels=${kernels/cudnn,/}
# FlashAttention-4's kernels are for one architecture each.
card=fa4_sm$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
for kernel in ${kernels//,/ }; do
  case $kernel in
    "$card") ;;
    fa4_*) kernels=${kernels/$kernel,/}; echo "no GPU of ${kernel#fa4_} on this machine: attention by $kernel not run" ;;
  esac
done
export SEQPAR_TEST_ATTENTION=${kernels%%,*}
by_cudnn=
case ",$kernels," in *,cudnn,*) by_cudnn="SEQPAR_TEST_ATTENTION=cudnn SEQPAR_TEST_CUDA_ATTENTION=cudnn" ;; esac
logs=${OUT:-$(mktemp -d)}
table=()

# run NAME SECONDS COMMAND...: one row of the table.
run() {
  local name=$1 seconds=$2 log=$logs/$1.log begin
  shift 2
  begin=$(date +%s.%N)
  timeout -k 5 "$seconds" "$@" >"$log" 2>&1
  local rc=$?
  local took passed failed skipped
  took=$(awk -v a="$begin" -v b="$(date +%s.%N)" 'BEGIN{printf "%.1f", b - a}')
  passed=$(grep -c '^\[       OK' "$log") failed=$(grep -cE '^\[  FAILED  \] .*\(' "$log") skipped=$(grep -cE '^\[  SKIPPED \] .*\(' "$log")
  local row
  row=$(printf '%-46s rc %3d  %6ss  passed %4d  failed %3d  skipped %3d' "$name" "$rc" "$took" "$passed" "$failed" "$skipped")
  table+=("$row")
  echo "$row"
  [ $rc = 0 ] || grep -E 'Failure|FAILED|error|Expected|actual|Which is|_test.cc|oracle|what\(\)|check failed' "$log" | head -${LINES_MAX:-12} | cut -c1-220
  return $rc
}
tests() { # NAME SECONDS [ENV...]; label: what tells this run from others
  local name=$1 seconds=$2
  shift 2
  run "$name${label:+-$label}" "$seconds" env "$@" "$bundle/bin/$name" || failures=$((failures + 1))
}

# By cuDNN, in processes side by side: what takes the time is the host, which makes a graph for every shape and compiles a
# kernel for every head dimension, mask and pass. Only bfloat16 comes to it: of the suite of both types those tests.
sharded_by_cudnn() { # NAME
  local filter='*'
  [ "$1" != worker_device_attention_test ] || filter='*BFloat16*:*SeesOneKey*'
  run "$1-cudnn" 300 env SEQPAR_TEST_KERNELS=cuda,cuda_deterministic $by_cudnn GTEST_FILTER="$filter" \
    "$bundle/shards.sh" 8 "$bundle/bin/$1" || failures=$((failures + 1))
}

failures=0
date -u +'%Y-%m-%d %H:%M UTC'
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
if [ "$part" = all ] || [ "$part" = kernels ]; then
  for name in $(grep '^worker_' "$bundle/tests.txt"); do
    tests "$name" 200 SEQPAR_TEST_KERNELS=cuda,cuda_deterministic
    case "$by_cudnn:$name" in
      SEQPAR*attention*) sharded_by_cudnn "$name" ;;
    esac
  done
  # Alone in a process, so that nothing else has run.
  for name in worker_device_attention_test; do
    for kernel in ${kernels//,/ }; do
      for order in cuda cuda_deterministic; do
        label=$kernel-$order tests "$name" 100 SEQPAR_TEST_KERNELS=$order SEQPAR_TEST_ATTENTION=$kernel \
          SEQPAR_TEST_CUDA_ATTENTION=$kernel GTEST_FILTER='*RunsOnTheKernel*'
      done
    done
  done
fi
suites="worker_device_kernels_test worker_device_layer_kernels_test worker_device_attention_test worker_device_attention_values_test"
# Every access of every kernel that a test runs, in processes side by side: it makes kernels hundreds of times as slow.
memcheck() { # NAME
  run "memcheck-$1" 100 env SEQPAR_TEST_KERNELS=cuda,cuda_deterministic "$bundle/shards.sh" 12 \
    compute-sanitizer --tool memcheck --error-exitcode 9 "$bundle/bin/$1" || failures=$((failures + 1))
  echo "    $(grep -c 'ERROR SUMMARY: 0 errors' "$logs/memcheck-$1.log") of 12 processes without an error"
}
# Races of our own kernels, attention's included, in one process: a library's first product takes the tool most of a minute.
# Those products (nvjet) order their copies by means that it does not know, and it reports them. Lengths around every edge
# of a block take it minutes, and no other path.
racecheck() { # NAME
  local log=$logs/racecheck-$1.log ours rc=0
  run "racecheck-$1" 110 env SEQPAR_TEST_KERNELS=cuda SEQPAR_TEST_ATTENTION=tiled_float32 \
    SEQPAR_TEST_CUDA_ATTENTION=tiled_float32 compute-sanitizer --tool racecheck "$bundle/bin/$1" --gtest_filter='-*LengthsAroundEvery*' || rc=$?
  ours=$(grep -E '(Read|Write) access at' "$log" | grep -vc 'access at nvjet_')
  echo "    races: $ours in our kernels, $(grep -c 'Race reported.*access at nvjet_' "$log") reported in the libraries' products"
  case $rc in
    0) ;;
    124) echo "    its time was over: what passed is all that was looked at" ;;
    *) failures=$((failures + 1)) ;;
  esac
  [ "$ours" = 0 ] || failures=$((failures + 1))
}
for tool in memcheck:sanitizer racecheck:races; do
  [ "$part" = all ] || [ "$part" = "${tool#*:}" ] || continue
  if ! command -v compute-sanitizer >/dev/null; then
    echo "no compute-sanitizer on this machine: ${tool#*:} not run"
    continue
  fi
  for name in $suites; do "${tool%:*}" "$name"; done
done
if [ "$part" = all ] || [ "$part" = strategies ]; then
  for name in $(grep '^common_' "$bundle/tests.txt"); do
    tests "$name" 240 SEQPAR_TEST_KERNEL=cuda SEQPAR_TEST_KERNELS=cuda,cuda_deterministic
  done
fi
if [ "$part" = all ] || [ "$part" = nccl ]; then
  for name in $(grep '^conformance_' "$bundle/tests.txt"); do
    run "$name" 150 "$bundle/bin/$name" --gtest_filter='*nccl*' || failures=$((failures + 1))
  done
fi
if [ "$part" = all ] || [ "$part" = bench ]; then
  for bench in "$bundle"/bin/gpu_*; do
    [ -e "$bench" ] || continue
    run "$(basename "$bench")" 300 "$bench" || failures=$((failures + 1))
    cat "$logs/$(basename "$bench").log"
  done
fi
if [ "$part" = all ] || [ "$part" = layer ]; then
  run gpu_layer_peer 420 python3 "$bundle/gpu_layer_peer.py" "$bundle/bin/gpu_layer_bench" || failures=$((failures + 1))
  cat "$logs/gpu_layer_peer.log"
fi
if [ "$part" = all ] || [ "$part" = peer ]; then
  run gpu_attention_kernels_peer 150 python3 "$bundle/gpu_attention_kernels_peer.py" "$bundle/bin/gpu_kernels_bench" \
    --kernels "$kernels" || failures=$((failures + 1))
  cat "$logs/gpu_attention_kernels_peer.log"
  run gpu_attention_peer 400 python3 "$bundle/gpu_attention_peer.py" "$bundle/bin/gpu_kernels_bench" || failures=$((failures + 1))
  cat "$logs/gpu_attention_peer.log"
fi
echo
printf '%s\n' "${table[@]}"
exit $((failures > 0))
