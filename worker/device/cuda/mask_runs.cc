#include "worker/device/cuda/mask_runs.h"

#include <algorithm>

namespace seqpar::cuda {
namespace {

// The queries from `first` on whose ends of the range all stand still or all move on by one, as the first two
// do.
QueryRun RunFrom(const KeyRanges& ranges, int64_t first) {
  const std::vector<int32_t>&lo = ranges.lo, &hi = ranges.hi;
  const auto queries = static_cast<int64_t>(lo.size());
  const auto empty = [&](int64_t i) { return lo[i] >= hi[i]; };
  QueryRun run;
  run.first = first;
  int64_t end = first + 1;
  if (empty(first)) {
    while (end < queries && empty(end)) ++end;
    run.count = end - first;
    return run;
  }
  int lo_step = 0, hi_step = 0;
  if (end < queries && !empty(end)) {
    const int lo_first = lo[end] - lo[first], hi_first = hi[end] - hi[first];
    if (lo_first >= 0 && lo_first <= 1 && hi_first >= 0 && hi_first <= 1) {
      lo_step = lo_first;
      hi_step = hi_first;
      while (end < queries && !empty(end) && lo[end] - lo[end - 1] == lo_step &&
             hi[end] - hi[end - 1] == hi_step) {
        ++end;
      }
    }
  }
  run.count = end - first;
  run.first_key = lo[first];
  run.keys = hi[end - 1] - lo[first];
  if (lo_step == 1) {
    run.mask = RunMask::kWindow;
    run.left = static_cast<int32_t>(run.keys - run.count);
    run.right = hi_step == 1 ? 0 : kUnlimited;
  } else {
    run.mask = hi_step == 1 ? RunMask::kCausal : RunMask::kFull;
  }
  return run;
}

}  // namespace

std::optional<std::vector<QueryRun>> CutIntoRuns(const KeyRanges& ranges, int64_t runs_max) {
  std::vector<QueryRun> runs;
  const auto queries = static_cast<int64_t>(ranges.lo.size());
  for (int64_t i = 0; i < queries; i += runs.back().count) {
    if (static_cast<int64_t>(runs.size()) == runs_max) return std::nullopt;
    runs.push_back(RunFrom(ranges, i));
  }
  return runs;
}

std::vector<QueryRun> SplitRun(const QueryRun& run, int64_t queries_max) {
  std::vector<QueryRun> parts;
  for (int64_t begin = 0; begin < run.count; begin += queries_max) {
    QueryRun part = run;
    part.first = run.first + begin;
    part.count = std::min(queries_max, run.count - begin);
    // Keys up to the one at which the part's last query is aligned; all of them where it sees on from there.
    const int64_t aligned = begin + part.count + run.keys - run.count;
    if (run.mask == RunMask::kCausal || (run.mask == RunMask::kWindow && run.right == 0)) {
      part.keys = aligned;
    } else if (run.mask == RunMask::kWindow) {
      const auto moved = static_cast<int32_t>(run.keys - aligned);
      if (run.left != kUnlimited) part.left += moved;
      if (run.right != kUnlimited) part.right -= moved;
    }
    parts.push_back(part);
  }
  return parts;
}

}  // namespace seqpar::cuda
