#include "worker/device/cuda/cudnn_attention.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/status.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/cudnn_sums.h"
#include "worker/device/cuda/fa4_sums.h"
#include "worker/device/cuda/head_part.h"

namespace seqpar::cuda {
namespace {

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

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

CudnnAttention::CudnnAttention(bool fixed_order, Scratch* scratch)
    : fixed_order_(fixed_order),
      scratch_(scratch),
      made_(
          {.made_ahead_max = kMadeAheadMax, .ahead_seconds_max = kAheadSecondsMax},
          [this](const CudnnShape& shape) { return graphs_->Make(shape); }, Seconds) {}

CudnnGraphs* CudnnAttention::Graphs() {
  if (!opened_) {
    opened_ = true;
    auto graphs = CudnnGraphs::Create();
    if (graphs.ok()) graphs_ = std::move(graphs).value();
  }
  return graphs_.get();
}

std::optional<CudnnPlan> CudnnAttention::Plan(CudnnPass pass, const AttentionTile& tile,
                                              const std::vector<QueryRun>& runs, bool first,
                                              const Matrix* dout, bool ahead) {
  if (Graphs() == nullptr) return std::nullopt;
  return PlanCudnn(pass, tile, runs, first, dout, [&](const CudnnShape& shape) -> CudnnKernel {
    if (!ahead) return made_.Get(shape);
    const CudnnKernel* kernel = made_.GetAhead(shape);
    return kernel == nullptr ? CudnnKernel() : *kernel;
  });
}

std::optional<CudnnPlan> CudnnAttention::PlanForward(const AttentionTile& tile,
                                                     const std::vector<QueryRun>& runs, const Matrix& out,
                                                     bool first) {
  if (!Aligned(tile, {out})) return std::nullopt;
  return Plan(CudnnPass::kForward, tile, runs, first, nullptr, false);
}

std::optional<CudnnPlan> CudnnAttention::PlanBackward(const AttentionTile& tile,
                                                      const std::vector<QueryRun>& runs, const Matrix& dout,
                                                      const std::vector<Matrix>& gradients) {
  if (!Aligned(tile, gradients) || !AlignedForTensorCores(dout)) return std::nullopt;
  return Plan(backward_pass(), tile, runs, false, &dout, false);
}

bool CudnnAttention::PrepareForward(const AttentionTile& tile, const std::vector<QueryRun>& runs,
                                    const Matrix& out) {
  return Aligned(tile, {out}) && Plan(CudnnPass::kForward, tile, runs, true, nullptr, true).has_value();
}

bool CudnnAttention::PrepareBackward(const AttentionTile& tile, const std::vector<QueryRun>& runs,
                                     const Matrix& dout, const std::vector<Matrix>& gradients) {
  return Aligned(tile, gradients) && AlignedForTensorCores(dout) &&
         Plan(backward_pass(), tile, runs, false, &dout, true).has_value();
}

void CudnnAttention::Count(AttentionUse* use) const {
  use->made_ahead += made_.made_ahead();
  use->made_late += made_.made_late();
  use->ahead_seconds += made_.ahead_seconds();
  use->late_seconds += made_.late_seconds();
}

absl::StatusOr<char*> CudnnAttention::TakeFor(cudaStream_t stream, const CudnnLaunch& launch) {
  SEQPAR_ASSIGN_OR_RETURN(
      void* const scratch,
      scratch_->Take(stream, launch.own_bytes + launch.workspace_bytes, "results of an attention tile"));
  return static_cast<char*>(scratch);
}

absl::Status CudnnAttention::Forward(cudaStream_t stream, const AttentionTile& tile,
                                     const std::vector<QueryRun>& runs, const CudnnPlan& plan,
                                     const Matrix& out, const Matrix& lse, bool first) {
  for (const QueryRun& run : runs) {
    if (!first || run.mask != RunMask::kEmpty) continue;
    const int64_t begin = run.first * tile.batch, end = begin + run.count * tile.batch;
    const Matrix o = out.Rows(begin, end), l = lse.Rows(begin, end);
    SEQPAR_CUDA_RETURN_IF_ERROR(FillUnseen(stream, static_cast<float*>(o.data), o.ld, o.cols,
                                           static_cast<float*>(l.data), l.ld, l.cols, o.rows),
                                "queries that see nothing");
  }
  for (const CudnnLaunch& launch : plan.launches) {
    const HeadPart q = CudnnQueries(tile, launch.piece, launch.grid, tile.head_dim),
                   one = CudnnQueries(tile, launch.piece, launch.grid, 1),
                   kv = CudnnKeys(tile, launch.piece, launch.grid);
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

absl::Status CudnnAttention::Backward(cudaStream_t stream, const AttentionTile& tile, const CudnnPlan& plan,
                                      const Matrix& dout, const Matrix& lse, const Matrix& delta,
                                      const Matrix& dq, const Matrix& dk, const Matrix& dv) {
  for (const CudnnLaunch& launch : plan.launches) {
    const HeadPart q = CudnnQueries(tile, launch.piece, launch.grid, tile.head_dim),
                   one = CudnnQueries(tile, launch.piece, launch.grid, 1),
                   kv = CudnnKeys(tile, launch.piece, launch.grid);
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
