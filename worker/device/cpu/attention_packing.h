// What the vectorised attention computes on besides numbers: packed operands, and which keys a panel of
// queries sees.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ATTENTION_PACKING_H_
#define SEQPAR_WORKER_DEVICE_CPU_ATTENTION_PACKING_H_

#include <cstdint>
#include <vector>

#include "worker/device/cpu/attention_kernel.h"
#include "worker/device/cpu/attention_simd.h"

namespace seqpar::cpu {

// Hands out pieces of a scratch block, each 64-byte aligned.
class Carver {
 public:
  explicit Carver(float* begin) : next_(begin) {}
  float* Take(int64_t floats) {
    float* piece = next_;
    next_ += Padded(floats);
    return piece;
  }
  static int64_t Padded(int64_t floats) { return (floats + 15) / 16 * 16; }

 private:
  float* next_;
};

// Tokens [first, first + count) of `view` times `scale`, "across (width)" as attention_simd.h says:
// to[count / width][head_dim][width]. Tokens from `tokens` on are zero. width divides count, kGroup divides
// width; buffer has kGroup * head_dim floats.
void PackAcross(const HeadView& view, int64_t tokens, int64_t first, int count, int width, float scale,
                float* buffer, float* to);

// The same tokens "along (width)": to[ceil(head_dim / width)][count][width]; dimensions from head_dim on are
// zero.
void PackAlong(const HeadView& view, int64_t tokens, int64_t first, int count, int width, float* buffer,
               float* to);

// The keys that a panel of queries sees: [begin, end) at least one of them, [clear_begin, clear_end) all of
// them.
struct KeyExtent {
  int64_t begin = 0, end = 0, clear_begin = 0, clear_end = 0;
  bool empty() const { return begin >= end; }
};

// The tile's queries in panels, by their key ranges.
class QueryPanels {
 public:
  QueryPanels(const KeyRanges& ranges, int64_t queries, int panel);
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
  const int panel_;
  std::vector<KeyExtent> extents_;
};

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ATTENTION_PACKING_H_
