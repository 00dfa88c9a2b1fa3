#include "worker/device/cuda/run_cache.h"

#include <algorithm>
#include <iterator>

namespace seqpar::cuda {
namespace {

// A launch for every run: below this many queries a run, on average, one launch of another kernel does
// better.
constexpr int64_t kQueriesARun = 128;
// So many runs are always taken: the edges of a window, a few chunks.
constexpr int64_t kFewRuns = 8;

}  // namespace

const std::optional<std::vector<QueryRun>>& RunCache::Get(const std::shared_ptr<const KeyRanges>& ranges) {
  const auto found = entries_.find(ranges.get());
  if (found != entries_.end()) return found->second.runs;
  if (entries_.size() >= drop_at_) {
    for (auto it = entries_.begin(); it != entries_.end();) {
      it = it->second.ranges.use_count() == 1 ? entries_.erase(it) : std::next(it);
    }
    drop_at_ = std::max<size_t>(64, 2 * entries_.size());
  }
  return entries_.emplace(ranges.get(), Entry{ranges, Cut(*ranges)}).first->second.runs;
}

std::optional<std::vector<QueryRun>> RunCache::Cut(const KeyRanges& ranges) {
  const auto queries = static_cast<int64_t>(ranges.lo.size());
  return CutIntoRuns(ranges, std::max(kFewRuns, queries / kQueriesARun));
}

}  // namespace seqpar::cuda
