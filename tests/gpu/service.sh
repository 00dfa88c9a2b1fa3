#!/usr/bin/env bash
# usage: tests/gpu/service.sh [--bundle DIR]
# Runs the whole service on a machine with GPUs, from a bundle (tests/gpu/bundle.sh): a coordinator, a worker with every
# GPU, and jobs of each strategy over all of them, verified in float64. Exit status: 0 where every job succeeded.
set -uo pipefail
bundle=$(cd "$(dirname "$0")" && pwd)
[ "${1:-}" != --bundle ] || bundle=$2
export LD_LIBRARY_PATH=$bundle/lib:$bundle/lib/ucx${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export SEQPAR_CUDA_PLUGIN=$bundle/lib/libseqpar-cuda.so
dir=$(mktemp -d)
seqpar=$bundle/bin/seqpar
"$bundle/bin/seqpar-coordinator" --listen 127.0.0.1:0 --port-file "$dir/port" --state-dir "$dir/coordinator" \
  --data-root "data=$dir" >"$dir/coordinator.log" 2>&1 &
coordinator=$!
worker=
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
"$bundle/bin/seqpar-worker" --coordinator "$address" --devices cuda --state-dir "$dir/worker" \
  --data-root "data=$dir" >"$dir/worker.log" 2>&1 &
worker=$!
for _ in $(seq 600); do
  "$seqpar" -o json nodes 2>/dev/null | grep -q '"kind": *"cuda"' && break
  kill -0 $worker 2>/dev/null || { cat "$dir/worker.log"; exit 1; }
  sleep 0.2
done
"$seqpar" nodes
gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)
failures=0
job() { # NAME DTYPE TOKENS PARALLELISM [MASK]
  cat >"$dir/$1.yaml" <<YAML
name: $1
config: {hidden_size: 1024, num_attention_heads: 16, num_key_value_heads: 4, intermediate_size: 2816, num_hidden_layers: 2, rope_theta: 500000.0}
mask: ${5:-{kind: causal\}}
dtype: $2
pass: forward_backward
weights: {seed: 1}
input: {seed: 2, tokens: $3}
grad_output: {seed: 3}
output: {file: $1.safetensors, tensors: [hidden_states, hidden_states.grad, weights.grad]}
parallelism: $4
workers: {min: $gpus, max: $gpus}
verify: {rows: 4}
YAML
  echo "== $1"
  timeout 120 "$seqpar" submit -f "$dir/$1.yaml" --wait 2>&1 | grep -vE '^ *$' | tail -"${LINES_MAX:-28}"
  [ "${PIPESTATUS[0]}" = 0 ] || { failures=$((failures + 1)); tail -5 "$dir/worker.log"; }
}
job ring-bf16 bfloat16 32771 "{strategy: ring, ring: $gpus}"
job ulysses-bf16 bfloat16 32771 "{strategy: ulysses, ulysses: $gpus}"
job megatron-bf16 bfloat16 32771 "{strategy: megatron_sp, tensor: $gpus}"
job gather-window-bf16 bfloat16 32771 "{strategy: gather, ring: $gpus}" "{kind: window, left: 4096, right: 0}"
job ring-f32 float32 16387 "{strategy: ring, ring: $gpus}"
job auto-bf16 bfloat16 32771 auto
"$seqpar" list
exit $((failures > 0))
