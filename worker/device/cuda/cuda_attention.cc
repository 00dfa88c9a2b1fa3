#include "worker/device/cuda/cuda_attention.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/view.h"

namespace seqpar::cuda {
namespace {

std::vector<QuerySpan> All(const AttentionTile& tile) { return {{0, tile.queries}}; }
Matrix RowsOf(const Matrix& m, const AttentionTile& tile, const QuerySpan& span) {
  return m.Rows(span.first * tile.batch, span.end() * tile.batch);
}

}  // namespace

AttentionUse CudaAttention::Use(const std::string& otherwise) const {
  std::string names;
  for (const AttentionKernel kernel : {AttentionKernel::kFa4Sm90, AttentionKernel::kFa4Sm100,
                                       AttentionKernel::kCudnn, AttentionKernel::kTiledFloat32}) {
    if (!attended_[static_cast<int>(kernel)]) continue;
    absl::StrAppend(&names, names.empty() ? "" : "+", AttentionKernelName(kernel));
    // Our own has but one order.
    if (kernel != AttentionKernel::kTiledFloat32 && fixed_order_) names += "_fixed_order";
  }
  AttentionUse use;
  use.kernel = names.empty() ? otherwise : names;
  use.deterministic = fixed_order_ || !free_order_;
  cudnn_.Count(&use);
  return use;
}

AttentionKernel CudaAttention::Choose(const AttentionTile& tile, const std::vector<Matrix>& others,
                                      const std::vector<QueryRun>* runs,
                                      const std::function<bool(const std::vector<QueryRun>&)>& plan) const {
  const MaskShape mask = runs != nullptr ? MaskShape::kRegular : MaskShape::kIrregular;
  return ChooseAttention(capability_, tile.q.dtype, tile.head_dim, mask, [&](AttentionKernel one) {
    if (only_.has_value() && one != *only_) return false;
    return IsFa4(one) ? fa4_.Serves(tile, others) : plan(*runs);
  });
}

const std::vector<QueryRun>* CudaAttention::RunsOf(const AttentionTile& tile) {
  if (tile.q.dtype != DType::kBF16) return nullptr;  // no kernel of float32 asks for them
  const auto& found = runs_.Get(tile.ranges);
  return found.has_value() ? &*found : nullptr;
}

bool CudaAttention::Rounds(const AttentionTile& tile, const std::vector<Matrix>& results, bool keys) {
  const std::vector<QueryRun>* runs = RunsOf(tile);
  const auto none = [](const std::vector<QueryRun>&) { return false; };
  if (!IsFa4(Choose(tile, results, runs, none)) || !fa4_.Rounds(tile.head_dim)) return false;
  return !keys || fa4_.RoundsKeys(tile, *runs);
}

AttentionKernel CudaAttention::ChooseNow(const AttentionTile& tile, const std::vector<Matrix>& others,
                                         const std::function<bool(const std::vector<QueryRun>&)>& plan) {
  const AttentionKernel kernel = Choose(tile, others, RunsOf(tile), plan);
  attended_[static_cast<int>(kernel)] = true;
  return kernel;
}

void CudaAttention::Prepare(const AttentionTile& tile, bool backward) {
  if (tile.q.dtype != DType::kBF16) return;  // no kernel of float32 makes anything
  const std::optional<std::vector<QueryRun>> runs = RunCache::Cut(*tile.ranges);
  const auto floats = [](const Matrix& m) { return Matrix(nullptr, DType::kF32, m.rows, m.cols, m.ld); };
  const Matrix out = floats(tile.q), dk = floats(tile.k), dv = floats(tile.v);
  if (!backward) {
    Choose(tile, {out}, runs.has_value() ? &*runs : nullptr,
           [&](const std::vector<QueryRun>& all) { return cudnn_.PrepareForward(tile, all, out); });
    return;
  }
  Choose(tile, {tile.q, out, dk, dv}, runs.has_value() ? &*runs : nullptr,
         [&](const std::vector<QueryRun>& all) {
           return cudnn_.PrepareBackward(tile, all, tile.q, {out, dk, dv});
         });
}

absl::Status CudaAttention::Forward(cudaStream_t stream, const AttentionTile& tile, const Matrix& out,
                                    const Matrix& lse, bool first) {
  std::optional<CudnnPlan> plan;
  const AttentionKernel kernel = ChooseNow(tile, {out}, [&](const std::vector<QueryRun>& runs) {
    plan = cudnn_.PlanForward(tile, runs, out, first);
    return plan.has_value();
  });
  if (IsFa4(kernel)) {
    return fa4_.Forward(stream, tile, *runs_.Get(tile.ranges), out, lse, first);
  }
  if (kernel == AttentionKernel::kCudnn) {
    SEQPAR_RETURN_IF_ERROR(cudnn_.Forward(stream, tile, *runs_.Get(tile.ranges), *plan, out, lse, first));
  }
  for (const QuerySpan& span : plan.has_value() ? plan->left : All(tile)) {
    SEQPAR_RETURN_IF_ERROR(OwnForward(stream, tile, span, out, lse, first));
  }
  return absl::OkStatus();
}

absl::Status CudaAttention::Backward(cudaStream_t stream, const AttentionTile& tile, const Matrix& dout,
                                     const Matrix& lse, const Matrix& delta, const Matrix& dq,
                                     const Matrix& dk, const Matrix& dv) {
  std::optional<CudnnPlan> plan;
  const AttentionKernel kernel = ChooseNow(tile, {dout, dq, dk, dv}, [&](const std::vector<QueryRun>& runs) {
    plan = cudnn_.PlanBackward(tile, runs, dout, {dq, dk, dv});
    return plan.has_value();
  });
  if (kernel != AttentionKernel::kTiledFloat32) free_order_ = true;
  if (IsFa4(kernel)) {
    return fa4_.Backward(stream, tile, *runs_.Get(tile.ranges), dout, lse, delta, dq, dk, dv);
  }
  if (kernel == AttentionKernel::kCudnn) {
    SEQPAR_RETURN_IF_ERROR(cudnn_.Backward(stream, tile, *plan, dout, lse, delta, dq, dk, dv));
  }
  for (const QuerySpan& span : plan.has_value() ? plan->left : All(tile)) {
    SEQPAR_RETURN_IF_ERROR(OwnBackward(stream, tile, span, dout, lse, delta, dq, dk, dv));
  }
  return absl::OkStatus();
}

absl::Status CudaAttention::OwnForward(cudaStream_t stream, const AttentionTile& tile, const QuerySpan& span,
                                       const Matrix& out, const Matrix& lse, bool first) {
  attended_[static_cast<int>(AttentionKernel::kTiledFloat32)] = true;
  SEQPAR_ASSIGN_OR_RETURN(const Tile t, TileOf(stream, tile, span));
  const auto of_span = [&](const Matrix& m) { return ViewOf(RowsOf(m, tile, span)); };
  return ToStatus(AttentionForward(stream, t, of_span(out), of_span(lse), first), "attention");
}

absl::Status CudaAttention::OwnBackward(cudaStream_t stream, const AttentionTile& tile, const QuerySpan& span,
                                        const Matrix& dout, const Matrix& lse, const Matrix& delta,
                                        const Matrix& dq, const Matrix& dk, const Matrix& dv) {
  attended_[static_cast<int>(AttentionKernel::kTiledFloat32)] = true;
  SEQPAR_ASSIGN_OR_RETURN(const Tile t, TileOf(stream, tile, span));
  const auto of_span = [&](const Matrix& m) { return ViewOf(RowsOf(m, tile, span)); };
  return ToStatus(AttentionBackward(stream, t, of_span(dout), of_span(lse), of_span(delta), of_span(dq),
                                    ViewOf(dk), ViewOf(dv)),
                  "attention gradient");
}

absl::StatusOr<Tile> CudaAttention::TileOf(cudaStream_t stream, const AttentionTile& tile,
                                           const QuerySpan& span) {
  if (tile.head_dim > kHeadDimMax) {
    return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                     absl::StrCat("head_dim is ", tile.head_dim, ", GPUs take up to ", kHeadDimMax));
  }
  Tile t{};
  t.batch = tile.batch, t.queries = span.count, t.keys = tile.keys;
  t.q_heads = tile.heads.q_heads(), t.kv_heads = tile.heads.kv_heads(), t.head_dim = tile.head_dim;
  t.first_q_head = tile.heads.q_begin, t.first_kv_head = tile.heads.kv_begin, t.group = tile.group;
  t.scale = tile.scale;
  t.q = ViewOf(RowsOf(tile.q, tile, span)), t.k = ViewOf(tile.k), t.v = ViewOf(tile.v);
  SEQPAR_ASSIGN_OR_RETURN(const DeviceRanges ranges, ranges_.Get(stream, tile.ranges));
  t.lo = ranges.lo + span.first, t.hi = ranges.hi + span.first;
  return t;
}

}  // namespace seqpar::cuda
