#!/usr/bin/env bash
# Fails, naming the files, where clang-format 14 would change something.
set -euo pipefail
cd "$1"
mapfile -t files < <(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')
[ ${#files[@]} -gt 0 ] || { echo "no sources"; exit 1; }
clang-format-14 --dry-run -Werror "${files[@]}" 2>&1 | sed -n 's/^\([^:]*\):.*/\1/p' | sort -u >/tmp/seqpar-format.$$ || true
bad=$(cat /tmp/seqpar-format.$$); rm -f /tmp/seqpar-format.$$
[ -z "$bad" ] || { echo "not formatted:"; echo "$bad"; exit 1; }
