// The inner loops of flash attention, one set for each vector instruction set that the build has.
//
// A *panel* is `panel` queries of one head that lie across the lanes of three vectors, so that maximum, sum
// and rescaling of a query's scores are vertical. A *chunk* is a fixed number of keys. Operands are packed as
// simd.h says: "across" has tokens side by side and head_dim as its depth, "along" dimensions side by side
// and tokens as its depth. Scores are in units of log2: queries come multiplied by scale * log2(e).
#ifndef SEQPAR_WORKER_DEVICE_CPU_ATTENTION_SIMD_H_
#define SEQPAR_WORKER_DEVICE_CPU_ATTENTION_SIMD_H_

#include <cstdint>
#include <string>

#include "worker/device/cpu/simd.h"

namespace seqpar::cpu {

// Keys that the products for dK and dV take at a time; the others take kGroup. Chunks are multiples of both.
inline constexpr int kGradientGroup = 6;
inline constexpr int kKeyGranule = 12;  // least common multiple of the two

// Which keys of a chunk the queries of a panel see. [begin, end) are those that at least one sees, in
// multiples of kKeyGranule; of these all queries see [clear_begin, clear_end), multiples of kGroup; outside
// it query i sees the keys [lo[i], hi[i]), counted from the chunk's first.
struct PanelKeys {
  int begin, end, clear_begin, clear_end;
  const int32_t *lo, *hi;  // [panel]
};

struct ForwardStep {
  PanelKeys keys_seen;
  int head_dim, chunk;
  const float* queries;  // across (panel): [head_dim][panel]
  const float* keys;     // across (kGroup)
  const float* values;   // along (kGroup): [RoundUp(head_dim, kGroup) / kGroup][chunk][kGroup]
  float* scores;         // scratch [chunk][panel]
  // Running state of the panel's queries: maximum score, sum of 2^(score - maximum), and the sum weighted by
  // the values.
  float* max;  // [panel], -infinity where no key was seen
  float* sum;  // [panel]
  float* out;  // [RoundUp(head_dim, kGroup)][panel]
};

struct BackwardStep {
  PanelKeys keys_seen;
  int head_dim, chunk;
  const float *queries, *douts;  // across (panel)
  const float *keys, *values;    // across (kGroup)
  const float* keys_along;       // along (kGroup)
  const float* lse;              // [panel], log2; anything finite for queries that see no key
  const float* delta;            // [panel]
  // p = 2^(score - lse) and ds = p * (dout . v - delta), zero for keys not seen: [chunk][panel], rows [begin,
  // end).
  float *p, *ds;
  float* dq;  // [RoundUp(head_dim, kGroup)][panel], += ds . k
};

// sums[key][dim] += sum over panels and their queries of weights[panel][key][query] * rows[query][dim], for
// the keys [key, key + kGradientGroup) and the block of dim_block dimensions that rows and sums point at.
struct KeyGradientStep {
  int panels;
  const float* weights;  // of the first panel and key; rows of `panel`, panels weights_stride apart
  int64_t weights_stride;
  const float* rows;  // along (dim_block), of the first panel's first query
  float* sums;        // rows sums_stride apart
  int64_t sums_stride;
};

struct AttentionSimd {
  int panel;      // queries
  int dim_block;  // dimensions that KeyGradientStep takes at a time
  void (*forward)(const ForwardStep&);
  void (*backward_scores)(const BackwardStep&);          // p and ds
  void (*backward_query_gradient)(const BackwardStep&);  // dq, after backward_scores
  void (*backward_key_gradient)(const KeyGradientStep&);
};

// By the name of the instruction set; nullptr where there is none of it.
const AttentionSimd* FindAttentionSimd(const std::string& name);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ATTENTION_SIMD_H_
