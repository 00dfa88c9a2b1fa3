#!/usr/bin/env bash
# usage: tests/gpu/service.sh [--part jobs|longest|faults|shared|links|all] [--bundle DIR]
# Runs the whole service on a machine with GPUs, from a bundle (tests/gpu/bundle.sh): a coordinator, a worker with every
# GPU, and
#   jobs    jobs of each strategy over all of them, verified in float64
#   longest the longest sequence of one layer that is let onto a GPU, run; a tenth more refused (longest.py)
#   faults  each rank in turn killed, then stopped, in a running job: the next attempt succeeds, the verdict names the
#           rank, its GPU is free again, the daemon lives on (faults.py)
#   shared  twice as many ranks as GPUs, on each GPU two (on one GPU four)
#   links   two workers with half of the GPUs each (on one GPU both with all of it): the link between them is measured
#           while they are idle, and a plan over both says so
# Exit status: 0 where everything went as it should.
# Example: tests/gpu/bundle.sh build /tmp/bundle && /tmp/bundle/service.sh --part jobs
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bundle=$here part=all
while [ $# -gt 0 ]; do
  case "$1" in
    --part) part=$2; shift ;;
    --bundle) bundle=$2; shift ;;
    -h | --help) sed -n '2,/^set /s/^# \?//p' "$0"; exit 0 ;;
    *) echo "$1: not --part or --bundle" >&2; sed -n '2,/^set /s/^# \?//p' "$0" >&2; exit 2 ;;
  esac
  shift
done
case " jobs longest faults shared links all " in
  *" $part "*) ;;
  *) echo "--part $part: not jobs, longest, faults, shared, links or all" >&2; exit 2 ;;
esac
export LD_LIBRARY_PATH=$bundle/lib:$bundle/lib/ucx${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export SEQPAR_CUDA_PLUGIN=$bundle/lib/libseqpar-cuda.so
. "$bundle/cudnn.sh" && grep -qx cudnn "$bundle/attention.txt" && cudnn=1 || cudnn=
dir=$(mktemp -d)
seqpar=$bundle/bin/seqpar
failures=0 worker=
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }
"$bundle/bin/seqpar-coordinator" --listen 127.0.0.1:0 --port-file "$dir/port" --state-dir "$dir/coordinator" \
  --no-progress-timeout 5s --step-timeout 5s --measure-links 2s --data-root "data=$dir" >"$dir/coordinator.log" 2>&1 &
coordinator=$!
end() {
  kill $worker $coordinator 2>/dev/null
  wait
  cp "$dir"/*.log "${OUT:-$dir}" 2>/dev/null
  [ -z "${OUT:-}" ] || rm -rf "$dir"
}
trap end EXIT
for _ in $(seq 200); do [ ! -s "$dir/port" ] || break; sleep 0.05; done
address=$(cat "$dir/port")
case "$address" in *:*) ;; *) address=127.0.0.1:$address ;; esac
export SEQPAR_SERVER=$address
ready() { "$seqpar" -o json nodes 2>/dev/null | python3 -c '
import json, sys
nodes = json.load(sys.stdin).get("nodes", [])
sys.exit(not any(n["name"] == sys.argv[1] and n["state"] == "NODE_STATE_READY" for n in nodes))' "$1"; }
start_worker() { # NAME FLAG...
  local name=$1
  shift
  "$bundle/bin/seqpar-worker" --coordinator "$address" --node-name "$name" --devices cuda --state-dir "$dir/$name" \
    --data-root "data=$dir" "$@" >"$dir/$name.log" 2>&1 &
  worker=$!
  for _ in $(seq 600); do
    ready "$name" && return
    kill -0 $worker 2>/dev/null || { cat "$dir/$name.log"; exit 1; }
    sleep 0.2
  done
  cat "$dir/$name.log"
  exit 1
}
stop_worker() {
  kill $worker
  wait $worker
  worker=
}
gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)
ranks=$gpus
hidden=1024
job() { # NAME DTYPE TOKENS PARALLELISM [MASK]
  cat >"$dir/$1.yaml" <<YAML
name: $1
config: {hidden_size: $hidden, num_attention_heads: 16, num_key_value_heads: 4, intermediate_size: 2816, num_hidden_layers: 2, rope_theta: 500000.0}
mask: ${5:-{kind: causal\}}
dtype: $2
pass: forward_backward
weights: {seed: 1}
input: {seed: 2, tokens: $3}
grad_output: {seed: 3}
output: {file: $1.safetensors, tensors: [hidden_states, hidden_states.grad, weights.grad]}
parallelism: $4
devices: cuda
workers: {min: $ranks, max: $ranks}
verify: {rows: 4}
YAML
  echo "== $1"
  timeout 120 "$seqpar" submit -f "$dir/$1.yaml" --wait 2>&1 | grep -vE '^ *$' | tee "$dir/last.txt" | tail -"${LINES_MAX:-28}"
  [ "${PIPESTATUS[0]}" = 0 ] || { fail "$1"; tail -5 "$dir"/gpu*.log; }
}
# Why attempts of jobs ended that did not succeed at once.
attempts() {
  "$seqpar" -o json list | python3 -c '
import json, subprocess, sys
for job in json.load(sys.stdin).get("jobs", []):
    got = json.loads(subprocess.check_output([sys.argv[1], "-o", "json", "get", job["id"]]))
    for attempt in got.get("attempts", []):
        if attempt.get("error"):
            print(got.get("name"), "attempt", attempt["attempt"], attempt["error"]["message"])' "$seqpar"
}
wanted() { [ "$part" = all ] || [ "$part" = "$1" ]; }

if wanted jobs || wanted longest || wanted faults; then
  start_worker gpus
  grep -E 'GPUs measured|worker starts' "$dir/gpus.log" | cut -c1-600
  "$seqpar" nodes
  "$seqpar" -o json nodes | python3 -c '
import json, sys
for node in json.load(sys.stdin)["nodes"]:
    print("local", node["local"], "start_seconds", node.get("start_seconds"))
    for device in node["devices"]:
        print(json.dumps(device["spec"]))'
fi
if wanted jobs; then
  job ring-bf16 bfloat16 32771 "{strategy: ring, ring: $ranks}"
  job ulysses-bf16 bfloat16 32771 "{strategy: ulysses, ulysses: $ranks}"
  job megatron-bf16 bfloat16 32771 "{strategy: megatron_sp, tensor: $ranks}"
  job gather-window-bf16 bfloat16 32771 "{strategy: gather, ring: $ranks}" "{kind: window, left: 4096, right: 0}"
  job ring-f32 float32 16387 "{strategy: ring, ring: $ranks}"
  job auto-bf16 bfloat16 32771 auto
  if [ -n "$cudnn" ]; then # heads of 80, which no other kernel has on tensor cores
    hidden=1280
    job heads-of-80-bf16 bfloat16 32771 "{strategy: ring, ring: $ranks}"
    grep -qw cudnn "$dir/last.txt" || fail "heads-of-80-bf16 ran on another kernel"
    hidden=1024
  fi
fi
if wanted longest; then
  python3 "$here/longest.py" --seqpar "$seqpar" --folder "$dir" || fail "longest"
fi
if wanted faults; then
  python3 "$here/faults.py" --seqpar "$seqpar" --worker $worker --folder "$dir" --ranks "$ranks" || fail "faults"
fi
[ -z "$worker" ] || stop_worker
if wanted shared; then
  each=2
  [ "$gpus" -gt 1 ] || each=4
  ranks=$((gpus * each))
  start_worker gpus-shared --test-ranks-per-gpu $each
  grep -E 'GPUs measured|worker starts' "$dir/gpus-shared.log" | cut -c1-600
  job shared-ring-bf16 bfloat16 8195 "{strategy: ring, ring: $ranks}"
  job shared-ulysses-f32 float32 4099 "{strategy: ulysses, ulysses: $ranks}"
  job shared-hybrid-bf16 bfloat16 8195 "{strategy: hybrid, ulysses: 2, ring: $((ranks / 2))}"
  stop_worker
fi
links() { "$seqpar" nodes | grep ' to '; }
if wanted links; then
  if [ "$gpus" -gt 1 ]; then
    CUDA_VISIBLE_DEVICES=$(seq -s, 0 $((gpus / 2 - 1))) start_worker links-a
    first=$worker
    CUDA_VISIBLE_DEVICES=$(seq -s, $((gpus / 2)) $((gpus - 1))) start_worker links-b
    ranks=$((gpus / 2 * 2))
  else
    start_worker links-a --test-ranks-per-gpu 2 --shared-gpus
    first=$worker
    start_worker links-b --test-ranks-per-gpu 2 --shared-gpus
    ranks=4
  fi
  worker="$first $worker"
  for _ in $(seq 300); do
    ! links >/dev/null || break
    sleep 0.2
  done
  links || { fail "the link was not measured"; tail -20 "$dir/coordinator.log" "$dir"/links-*.log; }
  job links-ring-bf16 bfloat16 32771 "{strategy: ring, ring: $ranks}"
  "$seqpar" plan -f "$dir/links-ring-bf16.yaml" --set output.overwrite=true | grep '^why' | tee "$dir/last.txt"
  grep -q 'measured between links-a and links-b' "$dir/last.txt" || fail "the plan does not use it"
  stop_worker
fi
"$seqpar" list
attempts
[ $failures = 0 ] && echo "all as it should be" || echo "$failures failed"
exit $((failures > 0))
