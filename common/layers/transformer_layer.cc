#include "common/layers/transformer_layer.h"

#include <utility>

#include "common/base/status.h"
#include "common/device/carve.h"
#include "common/layers/layer_scratch.h"

namespace seqpar {

absl::StatusOr<std::unique_ptr<TransformerLayer>> TransformerLayer::Create(const LayerPlan& plan,
                                                                           const RankStreams& streams,
                                                                           const RankGroups* groups) {
  SEQPAR_RETURN_IF_ERROR(CheckMesh(plan.strategy, plan.mesh(), plan.config.heads));
  std::unique_ptr<TransformerLayer> layer(new TransformerLayer(plan, streams, groups));
  SEQPAR_RETURN_IF_ERROR(layer->Allocate());
  return absl::StatusOr<std::unique_ptr<TransformerLayer>>(std::move(layer));
}

absl::Status TransformerLayer::Allocate() {
  SEQPAR_ASSIGN_OR_RETURN(attention_, AttentionHalf::Create(plan_, streams_, *groups_, &axis_, &rows_));
  Carver attention, pieces, rows_carver;
  int64_t spare_bytes = 0;
  if (plan_.config.mlp != MlpKind::kNone) {
    mlp_ = std::make_unique<MlpHalf>(plan_, streams_, table_, &axis_, &rows_);
    mlp_->AddPieces(&pieces);
    spare_bytes = mlp_->SpareBytes();
  }
  attention_->AddScratch(&attention, spare_bytes);
  axis_.AddScratch(&rows_carver);
  // What a norm gave is last read by the product that comes before the one that writes its gradient; without
  // a norm that is the input itself, which stays.
  const bool has_norm = plan_.config.norm != NormKind::kNone;
  if (has_norm) rows_carver.Add(&rows_.output, plan_.dtype, rows(), hidden());
  if (!has_norm && plan_.backward) rows_carver.Add(&rows_.gradient, plan_.dtype, rows(), hidden());

  const LayerScratchPlaces places = PlaceLayerScratch(
      {attention.bytes(), pieces.bytes(), rows_carver.bytes(), attention_->CoreScratchBytes()},
      plan_.backward && plan_.inspect);
  if (places.bytes > 0) {
    SEQPAR_ASSIGN_OR_RETURN(scratch_, streams_.device->Allocate(places.bytes, "layer scratch"));
  }
  const auto at = [&](int64_t offset) { return static_cast<char*>(scratch_.data()) + offset; };
  attention.Place(at(places.attention));
  pieces.Place(at(places.pieces));
  rows_carver.Place(at(places.rows));
  attention_->UseCoreScratch(at(places.core));
  if (has_norm) rows_.gradient = rows_.output;
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

void TransformerLayer::Forward(const WeightSet& weights, const Matrix& x, const LayerActivations& kept,
                               const Matrix& y) {
  const Matrix x1 = mlp_ != nullptr ? kept.mlp->x1 : y;
  attention_->Forward(Pass::kForward, weights, x, kept.attention.get(), x1);
  if (mlp_ != nullptr) mlp_->Forward(weights, kept.mlp.get(), y);
}

void TransformerLayer::Backward(const WeightSet& weights, const Matrix& x, const LayerActivations& kept,
                                const Matrix& dy, const WeightSet& gradients, const Matrix& dx) {
  // Products write gradients of matrices, what sums rows adds to those of vectors.
  for (const WeightSlice& slice : table_.slices()) {
    if (!slice.vector()) continue;
    const Matrix sums = gradients.Get(slice.id);
    streams_.device->Zero(*streams_.compute, sums.data, sums.bytes());
  }
  const bool again = plan_.recompute == Recompute::kLayer && mlp_ != nullptr;
  if (again) {  // the MLP's input needs all of the first half
    attention_->Forward(Pass::kBackward, weights, x, kept.attention.get(), kept.mlp->x1);
  }
  if (mlp_ != nullptr) mlp_->Backward(weights, kept.mlp.get(), dy, gradients, dx);
  if (RecomputesAttention(plan_.recompute) && !again) {
    attention_->Recompute(weights, x, kept.attention.get());
  }
  const bool has_mlp = mlp_ != nullptr;
  attention_->Backward(weights, x, kept.attention.get(), has_mlp ? dx : dy, gradients,
                       has_mlp ? kept.mlp->buffer.data() : nullptr, dx);
}

}  // namespace seqpar
