#include "worker/device/cuda/cudnn_attention.h"

#include <algorithm>
#include <set>
#include <utility>

#include "common/base/status.h"
#include "common/device/cuda_scratch.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/cudnn_sums.h"
#include "worker/device/cuda/fa4_sums.h"
#include "worker/device/cuda/head_part.h"

namespace seqpar::cuda {
namespace {

// A new shape takes a tenth of a second to get its graph: runs of more than these are left to kernels that
// take any.
constexpr size_t kShapesMax = 32;

HeadPart Queries(const AttentionTile& tile, const CudnnPiece& piece, const HeadGrid& grid, int64_t width) {
  return {grid, tile.batch, piece.first, piece.count, width, false};
}
HeadPart Keys(const AttentionTile& tile, const CudnnPiece& piece, const HeadGrid& grid) {
  return {grid, tile.batch, piece.first_key, piece.keys, tile.head_dim, true};
}

// Of one outer step the stride means nothing, and cuDNN wants one.
CudnnStrides StridesOf(const HeadPart& part, const Matrix& m) {
  const int64_t outer = part.grid.outer == 1 ? part.count * part.TokenStride(m) : part.OuterStride(m);
  return {outer, part.InnerStride(), part.TokenStride(m)};
}
HeadRows RowsOf(const HeadPart& part, const Matrix& m) {
  return {part.Data(m), part.OuterStride(m), part.InnerStride(), part.TokenStride(m)};
}
HeadDims DimsOf(const HeadGrid& grid, int64_t tokens, int head_dim) {
  return {grid.outer, grid.inner, tokens, head_dim};
}

bool Aligned(const AttentionTile& tile, const std::vector<Matrix>& others) {
  return AlignedForTensorCores(tile.q) && AlignedForTensorCores(tile.k) && AlignedForTensorCores(tile.v) &&
         std::all_of(others.begin(), others.end(), AlignedForTensorCores);
}

// What a launch computes in beside the library's own workspace.
int64_t OwnBytes(CudnnPass pass, const CudnnPiece& piece, const HeadGrid& grid, int head_dim) {
  const int64_t rows = grid.outer * grid.inner * piece.count, keys = grid.outer * grid.inner * piece.keys;
  // Forward O; backward dQ, what stands for O, dK and dV: 16 bits. Log-sum-exps: 32.
  const int64_t elements = (pass == CudnnPass::kForward ? rows : 2 * rows + 2 * keys) * head_dim;
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

// The shapes of pieces and grids that have been asked for.
class ShapeCount {
 public:
  // False past kShapesMax.
  bool Add(const CudnnPiece& piece, const HeadGrid& grid) {
    seen_.insert({static_cast<int64_t>(piece.mask), piece.count, piece.keys, grid.outer, grid.inner});
    return seen_.size() <= kShapesMax;
  }

 private:
  std::set<std::vector<int64_t>> seen_;
};

}  // namespace

CudnnGraphs* CudnnAttention::Graphs() {
  if (!opened_) {
    opened_ = true;
    auto graphs = CudnnGraphs::Create();
    if (graphs.ok()) graphs_ = std::move(graphs).value();
  }
  return graphs_.get();
}

bool CudnnAttention::Add(CudnnPass pass, const AttentionTile& tile, const CudnnPiece& piece,
                         const HeadGrid& grid, bool first, const Matrix* dout, int64_t budget,
                         std::vector<Launch>* launches) {
  // Of single queries cuDNN refuses some backward, and has other kernels forward: they are not worth a graph.
  if (piece.count == 1) return false;
  const HeadPart q = Queries(tile, piece, grid, tile.head_dim), kv = Keys(tile, piece, grid);
  CudnnShape shape;
  shape.pass = pass;
  shape.mask = piece.mask;
  shape.head_dim = tile.head_dim;
  shape.scale = tile.scale;
  shape.outer = grid.outer, shape.heads = grid.inner;
  shape.queries = piece.count, shape.keys = piece.keys;
  shape.q = StridesOf(q, tile.q), shape.k = StridesOf(kv, tile.k), shape.v = StridesOf(kv, tile.v);
  if (dout != nullptr) shape.dout = StridesOf(q, *dout);
  Launch launch{piece, grid, graphs_->Find(shape), 0, 0, first};
  if (launch.graph == nullptr) return false;
  launch.own_bytes = OwnBytes(pass, piece, grid, tile.head_dim);
  launch.workspace_bytes = graphs_->WorkspaceBytes(*launch.graph);
  if (launch.own_bytes + launch.workspace_bytes > budget) return false;
  launches->push_back(std::move(launch));
  return true;
}

std::optional<CudnnAttention::Plan> CudnnAttention::PlanRuns(CudnnPass pass, const AttentionTile& tile,
                                                             const std::vector<QueryRun>& runs, bool first,
                                                             const Matrix* dout) {
  if (Graphs() == nullptr) return std::nullopt;
  const Cutting cutting(pass, tile);
  ShapeCount shapes;
  Plan plan;
  const auto add = [&](const QueryRun& run) {
    if (TooSmallForCudnn(run)) return false;
    int64_t written = first ? run.first : run.first + run.count;  // queries before it have results
    for (const CudnnPiece& piece : CutIntoPieces(run, cutting.block)) {
      for (const HeadGrid& grid : cutting.GridsOf(piece)) {
        if (!shapes.Add(piece, grid) ||
            !Add(pass, tile, piece, grid, piece.first >= written, dout, cutting.budget, &plan.launches)) {
          return false;
        }
      }
      written = std::max(written, piece.first + piece.count);
    }
    return true;
  };
  for (const QueryRun& run : runs) {
    if (run.mask == RunMask::kEmpty) continue;
    const size_t before = plan.launches.size();
    if (add(run)) continue;
    plan.launches.erase(plan.launches.begin() + static_cast<std::ptrdiff_t>(before), plan.launches.end());
    if (!plan.left.empty() && plan.left.back().end() == run.first) {
      plan.left.back().count += run.count;
    } else {
      plan.left.push_back({run.first, run.count});
    }
  }
  if (plan.launches.empty()) return std::nullopt;
  return plan;
}

std::optional<CudnnAttention::Plan> CudnnAttention::PlanForward(const AttentionTile& tile,
                                                                const std::vector<QueryRun>& runs,
                                                                const Matrix& out, bool first) {
  if (!Aligned(tile, {out})) return std::nullopt;
  return PlanRuns(CudnnPass::kForward, tile, runs, first, nullptr);
}

std::optional<CudnnAttention::Plan> CudnnAttention::PlanBackward(const AttentionTile& tile,
                                                                 const std::vector<QueryRun>& runs,
                                                                 const Matrix& dout,
                                                                 const std::vector<Matrix>& gradients) {
  if (!Aligned(tile, gradients) || !AlignedForTensorCores(dout)) return std::nullopt;
  return PlanRuns(fixed_order_ ? CudnnPass::kBackwardFixed : CudnnPass::kBackward, tile, runs, false, &dout);
}

absl::StatusOr<char*> CudnnAttention::TakeFor(cudaStream_t stream, const Launch& launch) {
  SEQPAR_ASSIGN_OR_RETURN(
      void* const scratch,
      scratch_->Take(stream, launch.own_bytes + launch.workspace_bytes, "results of an attention tile"));
  return static_cast<char*>(scratch);
}

absl::Status CudnnAttention::Forward(cudaStream_t stream, const AttentionTile& tile,
                                     const std::vector<QueryRun>& runs, const Plan& plan, const Matrix& out,
                                     const Matrix& lse, bool first) {
  for (const QueryRun& run : runs) {
    if (!first || run.mask != RunMask::kEmpty) continue;
    const int64_t begin = run.first * tile.batch, end = begin + run.count * tile.batch;
    const Matrix o = out.Rows(begin, end), l = lse.Rows(begin, end);
    SEQPAR_CUDA_RETURN_IF_ERROR(FillUnseen(stream, static_cast<float*>(o.data), o.ld, o.cols,
                                           static_cast<float*>(l.data), l.ld, l.cols, o.rows),
                                "queries that see nothing");
  }
  for (const Launch& launch : plan.launches) {
    const HeadPart q = Queries(tile, launch.piece, launch.grid, tile.head_dim),
                   one = Queries(tile, launch.piece, launch.grid, 1),
                   kv = Keys(tile, launch.piece, launch.grid);
    const HeadDims dims = DimsOf(launch.grid, launch.piece.count, tile.head_dim);
    SEQPAR_ASSIGN_OR_RETURN(char* const scratch, TakeFor(stream, launch));
    auto* const partial_lse =
        reinterpret_cast<float*>(scratch + 2 * dims.outer * dims.heads * dims.tokens * dims.head_dim);
    SEQPAR_RETURN_IF_ERROR(graphs_->Forward(
        stream, *launch.graph, {q.Data(tile.q), kv.Data(tile.k), kv.Data(tile.v), scratch, partial_lse},
        scratch + launch.own_bytes));
    SEQPAR_CUDA_RETURN_IF_ERROR(
        MergePartial(stream, dims, scratch, partial_lse, launch.first, RowsOf(q, out), RowsOf(one, lse)),
        "merge a partial result of attention");
  }
  return absl::OkStatus();
}

absl::Status CudnnAttention::Backward(cudaStream_t stream, const AttentionTile& tile, const Plan& plan,
                                      const Matrix& dout, const Matrix& lse, const Matrix& delta,
                                      const Matrix& dq, const Matrix& dk, const Matrix& dv) {
  for (const Launch& launch : plan.launches) {
    const HeadPart q = Queries(tile, launch.piece, launch.grid, tile.head_dim),
                   one = Queries(tile, launch.piece, launch.grid, 1),
                   kv = Keys(tile, launch.piece, launch.grid);
    const HeadDims q_dims = DimsOf(launch.grid, launch.piece.count, tile.head_dim),
                   kv_dims = DimsOf(launch.grid, launch.piece.keys, tile.head_dim);
    const int64_t heads = q_dims.outer * q_dims.heads, row_bytes = 2 * heads * tile.head_dim;
    SEQPAR_ASSIGN_OR_RETURN(char* const scratch, TakeFor(stream, launch));
    char *const q_sums = scratch, *const o = q_sums + q_dims.tokens * row_bytes,
                *const k_sums = o + q_dims.tokens * row_bytes,
                *const v_sums = k_sums + kv_dims.tokens * row_bytes;
    auto* const lines = reinterpret_cast<float*>(v_sums + kv_dims.tokens * row_bytes);
    SEQPAR_CUDA_RETURN_IF_ERROR(
        PrepareCudnnBackward(stream, q_dims, RowsOf(q, dout), RowsOf(one, lse), RowsOf(one, delta), o, lines),
        "prepare an attention gradient");
    SEQPAR_RETURN_IF_ERROR(graphs_->Backward(
        stream, *launch.graph,
        {q.Data(tile.q), kv.Data(tile.k), kv.Data(tile.v), q.Data(dout), o, lines, q_sums, k_sums, v_sums},
        scratch + launch.own_bytes));
    SEQPAR_CUDA_RETURN_IF_ERROR(AddPacked(stream, q_dims, q_sums, RowsOf(q, dq)),
                                "add an attention gradient");
    SEQPAR_CUDA_RETURN_IF_ERROR(AddPacked(stream, kv_dims, k_sums, RowsOf(kv, dk)),
                                "add an attention gradient");
    SEQPAR_CUDA_RETURN_IF_ERROR(AddPacked(stream, kv_dims, v_sums, RowsOf(kv, dv)),
                                "add an attention gradient");
  }
  return absl::OkStatus();
}

}  // namespace seqpar::cuda
