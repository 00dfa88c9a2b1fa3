#include "worker/device/cuda/cudnn_plan.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "common/device/cuda_scratch.h"

namespace seqpar::cuda {
namespace {

// Of one outer step or one head the stride means nothing: whatever it is, the shape is the same.
CudnnStrides StridesOf(const HeadPart& part, const Matrix& m) {
  const int64_t outer = part.grid.outer == 1 ? part.count * part.TokenStride(m) : part.OuterStride(m);
  const int64_t head = part.grid.inner == 1 ? part.width : part.InnerStride();
  return {outer, head, part.TokenStride(m)};
}

CudnnShape ShapeOf(CudnnPass pass, const AttentionTile& tile, const CudnnPiece& piece, const HeadGrid& grid,
                   const Matrix* dout) {
  const HeadPart q = CudnnQueries(tile, piece, grid, tile.head_dim), kv = CudnnKeys(tile, piece, grid);
  CudnnShape shape;
  shape.pass = pass;
  shape.mask = piece.mask;
  shape.head_dim = tile.head_dim;
  shape.scale = tile.scale;
  shape.outer = grid.outer, shape.heads = grid.inner;
  shape.queries = piece.count, shape.keys = piece.keys;
  shape.q = StridesOf(q, tile.q), shape.k = StridesOf(kv, tile.k), shape.v = StridesOf(kv, tile.v);
  if (dout != nullptr) shape.dout = StridesOf(q, *dout);
  return shape;
}

// What a launch computes in beside the library's own workspace.
int64_t OwnBytes(const CudnnShape& s) {
  const int64_t rows = s.outer * s.heads * s.queries, keys = s.outer * s.heads * s.keys;
  // Forward O; backward dQ, what stands for O, dK and dV: 16 bits. Log-sum-exps: 32.
  const int64_t elements = (s.pass == CudnnPass::kForward ? rows : 2 * rows + 2 * keys) * s.head_dim;
  return (elements * 2 + rows * 4 + 255) / 256 * 256;
}

// How tiles are cut, so that what a launch computes in is at most what the plan counts on.
struct Cutting {
  Cutting(CudnnPass pass, const AttentionTile& tile)
      : pass(pass),
        head_dim(tile.head_dim),
        budget(CudaAttentionBudget(pass != CudnnPass::kForward, tile.queries,
                                   tile.batch * tile.heads.q_heads(), tile.head_dim)),
        block(CudnnBlock(pass, head_dim, budget / std::min<int64_t>(4, tile.batch * tile.heads.q_heads()))),
        grids(HeadGrids(tile.batch, tile.heads, tile.group, /*shared_kv=*/true)) {}

  std::vector<HeadGrid> GridsOf(const CudnnPiece& piece) const {
    constexpr int64_t kRounding = 64 << 10;  // to whole tiles and alignments
    const int64_t most = (budget - kRounding) / CudnnHeadBytes(pass, head_dim, piece.count, piece.keys);
    std::vector<HeadGrid> all;
    for (const HeadGrid& whole : grids) {
      for (const HeadGrid& grid : SplitGrid(whole, most)) all.push_back(grid);
    }
    return all;
  }

  const CudnnPass pass;
  const int head_dim;
  const int64_t budget, block;
  const std::vector<HeadGrid> grids;
};

class Planner {
 public:
  Planner(CudnnPass pass, const AttentionTile& tile, bool first, const Matrix* dout, const CudnnFind& find)
      : tile_(tile), first_(first), dout_(dout), find_(find), cutting_(pass, tile) {}

  // The run's launches at the end of `launches`. False where one of them cannot be; then some may be there.
  bool Add(const QueryRun& run, std::vector<CudnnLaunch>* launches) {
    if (TooSmallForCudnn(run)) return false;
    int64_t written = first_ ? run.first : run.first + run.count;  // queries before it have results
    for (const CudnnPiece& piece : CutIntoPieces(run, cutting_.block)) {
      // Of single queries cuDNN refuses some backward, and has other kernels forward: not worth a graph.
      if (piece.count == 1) return false;
      for (const HeadGrid& grid : cutting_.GridsOf(piece)) {
        if (!Add(piece, grid, piece.first >= written, launches)) return false;
      }
      written = std::max(written, piece.first + piece.count);
    }
    return true;
  }

 private:
  bool Add(const CudnnPiece& piece, const HeadGrid& grid, bool first, std::vector<CudnnLaunch>* launches) {
    const CudnnShape shape = ShapeOf(cutting_.pass, tile_, piece, grid, dout_);
    if (shapes_.count(shape) == 0) {
      if (shapes_.size() == kCudnnShapesMax) return false;
      shapes_.insert(shape);
    }
    CudnnKernel kernel = find_(shape);
    if (kernel.graph == nullptr) return false;
    const int64_t own_bytes = OwnBytes(shape);
    if (own_bytes + kernel.workspace_bytes > cutting_.budget) return false;
    launches->push_back({piece, grid, std::move(kernel.graph), own_bytes, kernel.workspace_bytes, first});
    return true;
  }

  const AttentionTile& tile_;
  const bool first_;
  const Matrix* const dout_;
  const CudnnFind& find_;
  const Cutting cutting_;
  std::set<CudnnShape> shapes_;
};

}  // namespace

std::optional<CudnnPlan> PlanCudnn(CudnnPass pass, const AttentionTile& tile,
                                   const std::vector<QueryRun>& runs, bool first, const Matrix* dout,
                                   const CudnnFind& find) {
  // Runs with the most to compute come to their shapes first, in case there are too many.
  std::vector<size_t> order(runs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return runs[a].count * runs[a].keys > runs[b].count * runs[b].keys;
  });
  Planner planner(pass, tile, first, dout, find);
  std::vector<std::vector<CudnnLaunch>> by_run(runs.size());
  for (const size_t i : order) {
    if (runs[i].mask != RunMask::kEmpty && !planner.Add(runs[i], &by_run[i])) by_run[i].clear();
  }
  CudnnPlan plan;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].mask == RunMask::kEmpty) continue;
    for (CudnnLaunch& launch : by_run[i]) plan.launches.push_back(std::move(launch));
    if (!by_run[i].empty()) continue;
    if (!plan.left.empty() && plan.left.back().end() == runs[i].first) {
      plan.left.back().count += runs[i].count;
    } else {
      plan.left.push_back({runs[i].first, runs[i].count});
    }
  }
  if (plan.launches.empty()) return std::nullopt;
  return plan;
}

}  // namespace seqpar::cuda
