#include "worker/device/cpu/query_panels.h"

#include <algorithm>

namespace seqpar::cpu {

QueryPanels::QueryPanels(const KeyRanges& ranges, int64_t queries, const AttentionSimd& simd)
    : ranges_(ranges),
      queries_(queries),
      panel_(simd.panel),
      group_(simd.group),
      granule_(simd.granule),
      extents_((queries + panel_ - 1) / panel_) {
  for (int64_t p = 0; p < count(); ++p) {
    KeyExtent& extent = extents_[p];
    const int64_t first = p * panel_, last = std::min(queries, first + panel_);
    bool all_see = last - first == panel_;  // the lanes that no query fills see nothing
    int64_t max_lo = 0, min_hi = INT64_MAX;
    for (int64_t query = first; query < last; ++query) {
      const int64_t lo = ranges.lo[query], hi = ranges.hi[query];
      if (lo >= hi) {
        all_see = false;
        continue;
      }
      extent.begin = extent.end == 0 ? lo : std::min(extent.begin, lo);
      extent.end = std::max(extent.end, hi);
      max_lo = std::max(max_lo, lo);
      min_hi = std::min(min_hi, hi);
    }
    if (all_see && max_lo < min_hi) {
      extent.clear_begin = max_lo;
      extent.clear_end = min_hi;
    }
  }
}

KeyExtent QueryPanels::Union(int64_t first, int64_t last) const {
  KeyExtent all;
  for (int64_t p = first; p < last; ++p) {
    if (extents_[p].empty()) continue;
    all.begin = all.empty() ? extents_[p].begin : std::min(all.begin, extents_[p].begin);
    all.end = std::max(all.end, extents_[p].end);
  }
  return all;
}

PanelKeys QueryPanels::Keys(int64_t panel, int64_t chunk_begin, int chunk, int32_t* lo, int32_t* hi) const {
  const auto in_chunk = [&](int64_t key) {
    return static_cast<int>(std::clamp<int64_t>(key - chunk_begin, 0, chunk));
  };
  const KeyExtent& extent = extents_[panel];
  PanelKeys keys{in_chunk(extent.begin) / granule_ * granule_,
                 RoundUp(in_chunk(extent.end), granule_),
                 RoundUp(in_chunk(extent.clear_begin), group_),
                 in_chunk(extent.clear_end) / group_ * group_,
                 lo,
                 hi};
  if (in_chunk(extent.begin) >= in_chunk(extent.end)) keys.begin = keys.end = 0;
  if (keys.clear_begin >= keys.clear_end) keys.clear_begin = keys.clear_end = keys.end;
  if (keys.clear_begin == keys.begin && keys.clear_end == keys.end) return keys;
  for (int i = 0; i < panel_; ++i) {
    const int64_t query = panel * panel_ + i;
    lo[i] = query < queries_ ? in_chunk(ranges_.lo[query]) : 0;
    hi[i] = query < queries_ ? in_chunk(ranges_.hi[query]) : 0;
  }
  return keys;
}

}  // namespace seqpar::cpu
