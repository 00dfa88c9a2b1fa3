#include "common/layers/transformer_layer.h"

#include <utility>

#include "common/base/status.h"
#include "common/layers/carve.h"

namespace seqpar {

absl::StatusOr<std::unique_ptr<TransformerLayer>> TransformerLayer::Create(const LayerPlan& plan,
                                                                           const RankStreams& streams,
                                                                           const RankGroups* groups) {
  SEQPAR_RETURN_IF_ERROR(CheckMesh(plan.strategy, plan.mesh(), plan.config.heads));
  SEQPAR_ASSIGN_OR_RETURN(TensorAxis axis, TensorAxis::Create(plan, streams, groups->tensor()));
  std::unique_ptr<TransformerLayer> layer(new TransformerLayer(plan, streams, groups, std::move(axis)));
  SEQPAR_RETURN_IF_ERROR(layer->Allocate());
  return absl::StatusOr<std::unique_ptr<TransformerLayer>>(std::move(layer));
}

absl::Status TransformerLayer::Allocate() {
  const bool has_mlp = plan_.config.mlp != MlpKind::kNone;
  Carver carver;
  if (plan_.config.norm != NormKind::kNone) carver.Add(&normed_, plan_.dtype, rows(), hidden());
  // What a norm gave is last read by the product that comes before the one that writes its gradient; without
  // a norm that is the input itself, which stays.
  const bool apart = plan_.backward && plan_.config.norm == NormKind::kNone;
  if (apart) carver.Add(&dh_, plan_.dtype, rows(), hidden());
  SEQPAR_ASSIGN_OR_RETURN(scratch_buffer_, carver.Allocate(streams_.device, "layer scratch"));
  if (!apart) dh_ = normed_;
  SEQPAR_ASSIGN_OR_RETURN(attention_, AttentionHalf::Create(plan_, streams_, *groups_, &axis_, normed_));
  if (has_mlp) {
    SEQPAR_ASSIGN_OR_RETURN(mlp_, MlpHalf::Create(plan_, streams_, table_, &axis_, normed_));
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerActivations> TransformerLayer::NewActivations() {
  const bool share_attention = plan_.backward && RecomputesAttention(plan_.recompute);
  const bool share_mlp = plan_.backward && plan_.recompute == Recompute::kLayer;
  LayerActivations kept;
  if (share_attention) kept.attention = shared_.attention;
  if (share_mlp) kept.mlp = shared_.mlp;
  if (kept.attention == nullptr) {
    SEQPAR_ASSIGN_OR_RETURN(kept.attention, attention_->NewActivations());
  }
  if (mlp_ != nullptr && kept.mlp == nullptr) {
    SEQPAR_ASSIGN_OR_RETURN(kept.mlp, mlp_->NewActivations());
  }
  shared_ = kept;
  return kept;
}

absl::Status TransformerLayer::Forward(const WeightSet& weights, const Matrix& x,
                                       const LayerActivations& kept, const Matrix& y) {
  const Matrix x1 = mlp_ != nullptr ? kept.mlp->x1 : y;
  SEQPAR_RETURN_IF_ERROR(attention_->Forward(Pass::kForward, weights, x, kept.attention.get(), x1));
  if (mlp_ != nullptr) mlp_->Forward(weights, kept.mlp.get(), y);
  return absl::OkStatus();
}

absl::Status TransformerLayer::Backward(const WeightSet& weights, const Matrix& x,
                                        const LayerActivations& kept, const Matrix& dy,
                                        const WeightSet& gradients, const Matrix& dx) {
  // Products write gradients of matrices, what sums rows adds to those of vectors.
  for (const WeightSlice& slice : table_.slices()) {
    if (!slice.vector()) continue;
    const Matrix sums = gradients.Get(slice.id);
    streams_.device->Zero(*streams_.compute, sums.data, sums.bytes());
  }
  const bool again = plan_.recompute == Recompute::kLayer && mlp_ != nullptr;
  if (again) {  // the MLP's input needs all of the first half
    SEQPAR_RETURN_IF_ERROR(
        attention_->Forward(Pass::kBackward, weights, x, kept.attention.get(), kept.mlp->x1));
  }
  if (mlp_ != nullptr) mlp_->Backward(weights, kept.mlp.get(), dy, gradients, dh_, dx);
  if (RecomputesAttention(plan_.recompute) && !again) {
    SEQPAR_RETURN_IF_ERROR(attention_->Recompute(weights, x, kept.attention.get()));
  }
  return attention_->Backward(weights, x, kept.attention.get(), mlp_ != nullptr ? dx : dy, gradients, dh_,
                              dx);
}

}  // namespace seqpar
