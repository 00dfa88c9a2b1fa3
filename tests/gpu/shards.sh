#!/usr/bin/env bash
# usage: tests/gpu/shards.sh COUNT COMMAND...
# Runs a GoogleTest binary as COUNT processes side by side, each with its part of the tests, and prints what each said
# when all have ended, or when it is told to end itself. Exit status: 0 where each process had 0.
# Example: tests/gpu/shards.sh 8 build/tests/worker_device_attention_test --gtest_filter='*BFloat16*'
set -uo pipefail
case "${1:-}" in
  -h | --help) sed -n '2,/^set /s/^# \?//p' "$0"; exit 0 ;;
  [1-9] | [1-9][0-9]) ;;
  *) echo "tests/gpu/shards.sh: COUNT is '${1:-}', must be 1 to 99 (--help)" >&2; exit 2 ;;
esac
[ $# -gt 1 ] || { echo "tests/gpu/shards.sh: needs a COMMAND (--help)" >&2; exit 2; }
count=$1
shift
logs=$(mktemp -d) pids=() failed=0
show() {
  trap '' TERM
  [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null
  cat "$logs"/*
  rm -rf "$logs"
}
trap 'show; exit 143' TERM
for index in $(seq 0 $((count - 1))); do
  GTEST_TOTAL_SHARDS=$count GTEST_SHARD_INDEX=$index "$@" >"$logs/$(printf %02d "$index")" 2>&1 &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
pids=()
show
exit $failed
