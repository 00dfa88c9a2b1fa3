// Which heads one launch of a kernel takes that knows no groups: one KV head a query head, by strides alone.
// Pure values, no CUDA.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_HEAD_GRID_H_
#define SEQPAR_WORKER_DEVICE_CUDA_HEAD_GRID_H_

#include <cstdint>
#include <vector>

#include "common/parallel/head_layout.h"

namespace seqpar::cuda {

// outer x inner heads: (o, i) is query head q_head + o * outer_q + i * inner_q and KV head kv_head + o *
// outer_kv + i of batch index row + o * outer_rows; local heads.
struct HeadGrid {
  int64_t outer = 1, inner = 1;
  int64_t row = 0, outer_rows = 0;
  int64_t q_head = 0, outer_q = 0, inner_q = 1;
  int64_t kv_head = 0, outer_kv = 0;
};

// Grids that together hold every query head of every batch index once. Two heads of one grid share a KV head
// only where `shared_kv`; then there are as few grids as can be.
std::vector<HeadGrid> HeadGrids(int64_t batch, const HeadRange& heads, int group, bool shared_kv);

// The same heads in grids of at most heads_max, at least one.
std::vector<HeadGrid> SplitGrid(const HeadGrid& grid, int64_t heads_max);

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_HEAD_GRID_H_
