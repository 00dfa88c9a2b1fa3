// The inner loops of flash attention, one set for each vector instruction set that the build has.
//
// A *panel* is `panel` queries of one head that lie across the lanes of a few vectors, so that maximum, sum
// and rescaling of a query's scores are vertical. A *chunk* is a fixed number of keys. Operands are packed as
// simd.h says: "across" has tokens side by side and head_dim as its depth, "along" dimensions side by side
// and tokens as its depth. Scores are in units of log2: queries come multiplied by scale * log2(e).
//
// A query and a key that it does not see have the weight 0, and 0 times what is not finite is NaN: where the
// rows that are weighted are not all finite, a product is *guarded*: a weight of exactly 0 adds nothing.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ATTENTION_SIMD_H_
#define SEQPAR_WORKER_DEVICE_CPU_ATTENTION_SIMD_H_

#include <cstdint>
#include <string>

#include "worker/device/cpu/simd.h"

namespace seqpar::cpu {

// Which keys of a chunk the queries of a panel see. [begin, end) are those that at least one sees, in
// multiples of `granule`; of these all queries see [clear_begin, clear_end), multiples of `group`; outside it
// query i sees the keys [lo[i], hi[i]), counted from the chunk's first.
struct PanelKeys {
  int begin, end, clear_begin, clear_end;
  const int32_t *lo, *hi;  // [panel]
};

struct ForwardStep {
  PanelKeys keys_seen;
  int head_dim, chunk;
  const float* queries;  // across (panel): [head_dim][panel]
  const float* keys;     // across (group)
  const float* values;   // along (group): [RoundUp(head_dim, group) / group][chunk][group]
  float* scores;         // scratch [chunk][panel]
  // Running state of the panel's queries: the score that weights are relative to, the sum of
  // 2^(score - base), and that sum weighted by the values. base is the maximum score or at most some powers
  // of two below it, so that it need not change, and the sums be rescaled, whenever the maximum grows.
  float* base;   // [panel], -infinity where no key was seen
  float* sum;    // [panel]
  float* out;    // [RoundUp(head_dim, group)][panel]
  bool guarded;  // some of the values are not finite
};

struct BackwardStep {
  PanelKeys keys_seen;
  int head_dim, chunk;
  const float *queries, *douts;  // across (panel)
  const float *keys, *values;    // across (group)
  const float* keys_along;       // along (group)
  const float* lse;              // [panel], log2; anything finite for queries that see no key
  const float* delta;            // [panel]
  // p = 2^(score - lse) and ds = p * (dout . v - delta), zero for keys not seen: [chunk][panel], rows [begin,
  // end).
  float *p, *ds;
  float* dq;     // [RoundUp(head_dim, group)][panel], += ds . k
  bool guarded;  // some of keys_along are not finite
};

// sums[key][dim] += sum over panels and their queries of weights[panel][key][query] * rows[query][dim], for
// the keys [key, key + KeyGradient::group) and the block of dimensions that rows and sums point at.
struct KeyGradientStep {
  int panels;
  const float* weights;  // of the first panel and key; rows of `panel`, panels weights_stride apart
  int64_t weights_stride;
  const float* rows;  // along (dim_block), of the first panel's first query
  float* sums;        // rows sums_stride apart
  int64_t sums_stride;
};

// The product for dK and dV: `group` keys and `dim_block` dimensions at a time.
struct KeyGradient {
  int group, dim_block;
  void (*add)(const KeyGradientStep&);
  void (*add_guarded)(const KeyGradientStep&);  // some of the rows are not finite
};

struct AttentionSimd {
  int panel;                          // queries
  int group;                          // keys, or dimensions, that the other products take at a time
  int granule;                        // keys: a multiple of every group
  int forward_chunk, backward_chunk;  // keys: multiples of granule that keep a step's operands in cache
  void (*forward)(const ForwardStep&);
  void (*backward_scores)(const BackwardStep&);          // p and ds
  void (*backward_query_gradient)(const BackwardStep&);  // dq, after backward_scores
  KeyGradient wide, narrow;                              // narrow has half the dimensions
  // rows[query][dim] = panels[dim][query]; dims is a multiple of kGroup.
  void (*unpack)(const float* panel, int dims, float* rows);
  // sum over i < n of a[i] * b[i] for each of `count` neighbours (n apart in a and b), to the bit what
  // backward_scores has for dout . v if a is dout and b is v.
  void (*dots)(const float* a, const float* b, int n, int64_t count, float* sums);

  // The one that wastes less on rounding head_dim up.
  const KeyGradient& ForHeadDim(int head_dim) const {
    return RoundUp(head_dim, narrow.dim_block) < RoundUp(head_dim, wide.dim_block) ? narrow : wide;
  }
};

// By the name of the instruction set; nullptr where there is none of it.
const AttentionSimd* FindAttentionSimd(const std::string& name);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ATTENTION_SIMD_H_
