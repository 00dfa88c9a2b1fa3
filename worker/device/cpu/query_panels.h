// Which keys the panels of queries see.
#ifndef SEQPAR_WORKER_DEVICE_CPU_QUERY_PANELS_H_
#define SEQPAR_WORKER_DEVICE_CPU_QUERY_PANELS_H_

#include <cstdint>
#include <vector>

#include "common/parallel/mask.h"
#include "worker/device/cpu/attention_simd.h"

namespace seqpar::cpu {

// The keys that a panel of queries sees: [begin, end) at least one of them, [clear_begin, clear_end) all of
// them.
struct KeyExtent {
  int64_t begin = 0, end = 0, clear_begin = 0, clear_end = 0;
  bool empty() const { return begin >= end; }
};

// The tile's queries in panels, by their key ranges.
class QueryPanels {
 public:
  QueryPanels(const KeyRanges& ranges, int64_t queries, const AttentionSimd& simd);
  int64_t count() const { return static_cast<int64_t>(extents_.size()); }
  const KeyExtent& extent(int64_t panel) const { return extents_[panel]; }
  // The keys that panels [first, last) see between them; empty where none sees any.
  KeyExtent Union(int64_t first, int64_t last) const;
  // What `panel` sees of the chunk of `chunk` keys at `chunk_begin`; begin == end where nothing. lo and hi,
  // [panel] each, are filled only where some key is not seen by all, and are referred to by the result.
  PanelKeys Keys(int64_t panel, int64_t chunk_begin, int chunk, int32_t* lo, int32_t* hi) const;

 private:
  const KeyRanges& ranges_;
  const int64_t queries_;
  const int panel_, group_, granule_;
  std::vector<KeyExtent> extents_;
};

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_QUERY_PANELS_H_
