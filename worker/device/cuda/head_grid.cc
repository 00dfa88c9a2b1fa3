#include "worker/device/cuda/head_grid.h"

#include <algorithm>

namespace seqpar::cuda {

std::vector<HeadGrid> HeadGrids(int64_t batch, const HeadRange& heads, int group, bool shared_kv) {
  std::vector<HeadGrid> grids;
  const bool whole_groups = heads.q_begin % group == 0 && heads.q_end % group == 0;
  if (group > 1 && whole_groups && shared_kv) {
    // A head of a group is a step of the outer dimension, over which the KV heads stay.
    for (int64_t b = 0; b < batch; ++b) {
      HeadGrid grid;
      grid.outer = group;
      grid.outer_q = 1;
      grid.inner = heads.q_heads() / group;
      grid.inner_q = group;
      grid.row = b;
      grids.push_back(grid);
    }
    return grids;
  }
  // The heads at one place of their groups have KV heads that follow each other.
  for (int place = 0; place < group; ++place) {
    const int64_t first = heads.q_begin + (place - heads.q_begin % group + group) % group;
    if (first >= heads.q_end) continue;
    HeadGrid grid;
    grid.outer = batch;
    grid.outer_rows = 1;
    grid.inner = (heads.q_end - 1 - first) / group + 1;
    grid.inner_q = group;
    grid.q_head = first - heads.q_begin;
    grid.kv_head = first / group - heads.kv_begin;
    grids.push_back(grid);
  }
  return grids;
}

std::vector<HeadGrid> SplitGrid(const HeadGrid& grid, int64_t heads_max) {
  heads_max = std::max<int64_t>(heads_max, 1);
  std::vector<HeadGrid> parts;
  // As few as can be, and alike: a last launch of few heads would leave the device half empty.
  const auto alike = [](int64_t count, int64_t most) {
    const int64_t pieces = (count + most - 1) / most;
    return (count + pieces - 1) / pieces;
  };
  const int64_t inner_max = alike(grid.inner, std::clamp<int64_t>(heads_max / grid.outer, 1, grid.inner));
  const int64_t outer_max = alike(grid.outer, std::clamp<int64_t>(heads_max / inner_max, 1, grid.outer));
  for (int64_t o = 0; o < grid.outer; o += outer_max) {
    for (int64_t i = 0; i < grid.inner; i += inner_max) {
      HeadGrid part = grid;
      part.outer = std::min(outer_max, grid.outer - o);
      part.inner = std::min(inner_max, grid.inner - i);
      part.row += o * grid.outer_rows;
      part.q_head += o * grid.outer_q + i * grid.inner_q;
      part.kv_head += o * grid.outer_kv + i;
      parts.push_back(part);
    }
  }
  return parts;
}

}  // namespace seqpar::cuda
