#include "common/layers/mlp_half.h"

#include <utility>

#include "common/base/status.h"
#include "common/layers/carve.h"

namespace seqpar {
namespace {

constexpr Operation kOperation = Operation::kTensorMlp;

}  // namespace

absl::StatusOr<std::unique_ptr<MlpHalf>> MlpHalf::Create(const LayerPlan& plan, const RankStreams& streams,
                                                         const WeightTable& table, TensorAxis* axis,
                                                         const Matrix& scratch) {
  std::unique_ptr<MlpHalf> half(new MlpHalf(plan, streams, table.intermediate().size(), axis, scratch));
  half->norm_ = {plan.config.norm, static_cast<float>(plan.config.norm_eps), WeightId::kPostNorm,
                 WeightId::kPostNormBias};
  Carver carver;
  carver.Add(&half->activated_, plan.dtype, axis->group_rows(), half->width_);
  SEQPAR_ASSIGN_OR_RETURN(half->buffer_, carver.Allocate(streams.device, "MLP activation"));
  return absl::StatusOr<std::unique_ptr<MlpHalf>>(std::move(half));
}

absl::StatusOr<std::shared_ptr<MlpActivations>> MlpHalf::NewActivations() {
  auto kept = std::make_shared<MlpActivations>();
  Carver carver;
  carver.Add(&kept->x1, plan_.dtype, axis_->own_rows(), plan_.config.hidden_size);
  carver.Add(&kept->stats, DType::kF32, axis_->own_rows(), 2);
  carver.Add(&kept->gate_up, plan_.dtype, axis_->group_rows(), (gated() ? 2 : 1) * width_);
  SEQPAR_ASSIGN_OR_RETURN(kept->buffer, carver.Allocate(streams_.device, "MLP activations"));
  return kept;
}

Matrix MlpHalf::GateUp(const WeightSet& set) const {
  return gated() ? set.Pair(WeightId::kGate, WeightId::kUp) : set.Get(WeightId::kUp);
}

Matrix MlpHalf::GateUpBias(const WeightSet& set) const {
  return gated() && set.Has(WeightId::kUpBias) ? set.Pair(WeightId::kGateBias, WeightId::kUpBias)
                                               : set.Get(WeightId::kUpBias);
}

// Fills kept->gate_up; returns the gathered input that it was made from.
Matrix MlpHalf::Expand(Pass pass, const WeightSet& weights, MlpActivations* kept) {
  Device& device = *streams_.device;
  Stream& compute = *streams_.compute;
  float* stats = static_cast<float*>(kept->stats.data);
  const Matrix h = norm_.Forward(device, compute, weights, kept->x1, scratch_, stats);
  const Matrix all = axis_->Gather(TensorAxis::Place::kInput, {kOperation, pass}, h);
  const Matrix bias = GateUpBias(weights);
  device.Gemm(compute, all, false, GateUp(weights), true, kept->gate_up, false,
              weights.Has(WeightId::kUpBias) ? &bias : nullptr);
  return all;
}

void MlpHalf::Activate(const MlpActivations& kept) {
  const Matrix gate = Gate(kept.gate_up);
  streams_.device->ActivationForward(*streams_.compute, plan_.config.mlp, gated() ? &gate : nullptr,
                                     Up(kept.gate_up), activated_);
}

void MlpHalf::Forward(const WeightSet& weights, MlpActivations* kept, const Matrix& y) {
  const TrafficKey key{kOperation, Pass::kForward};
  Expand(Pass::kForward, weights, kept);
  Activate(*kept);
  const Matrix bias = weights.Get(WeightId::kDownBias);
  streams_.device->Gemm(*streams_.compute, activated_, false, weights.Get(WeightId::kDown), true,
                        axis_->PartialOf(y), false, axis_->first() && !bias.empty() ? &bias : nullptr);
  axis_->Scatter(key, y);
  streams_.device->Add(*streams_.compute, kept->x1, y, y);
}

void MlpHalf::Recompute(const WeightSet& weights, MlpActivations* kept) {
  Expand(Pass::kBackward, weights, kept);
}

void MlpHalf::Backward(const WeightSet& weights, MlpActivations* kept, const Matrix& dy,
                       const WeightSet& gradients, const Matrix& scratch_gradient, const Matrix& dx1) {
  Device& device = *streams_.device;
  Stream& compute = *streams_.compute;
  const TrafficKey key{kOperation, Pass::kBackward};
  if (weights.Has(WeightId::kDownBias))
    device.AddColumnSums(compute, dy, gradients.Floats(WeightId::kDownBias));
  const Matrix all_dy = axis_->Gather(TensorAxis::Place::kGradient, key, dy);
  Activate(*kept);
  device.Gemm(compute, all_dy, true, activated_, false, gradients.Get(WeightId::kDown), false, nullptr);
  device.Gemm(compute, all_dy, false, weights.Get(WeightId::kDown), false, activated_, false, nullptr);
  const Matrix gate = Gate(kept->gate_up), up = Up(kept->gate_up);
  device.ActivationBackward(compute, plan_.config.mlp, gated() ? &gate : nullptr, up, activated_,
                            gated() ? &gate : nullptr, up);

  const float* stats = static_cast<const float*>(kept->stats.data);
  const Matrix h =
      norm_.Forward(device, compute, weights, kept->x1, scratch_, static_cast<float*>(kept->stats.data));
  const Matrix all = axis_->Gather(TensorAxis::Place::kInput, key, h);
  device.Gemm(compute, kept->gate_up, true, all, false, GateUp(gradients), false, nullptr);
  if (weights.Has(WeightId::kUpBias)) {
    device.AddColumnSums(compute, kept->gate_up, static_cast<float*>(GateUpBias(gradients).data));
  }
  device.Gemm(compute, kept->gate_up, false, GateUp(weights), false, axis_->PartialOf(scratch_gradient),
              false, nullptr);
  axis_->Scatter(key, scratch_gradient);
  norm_.Backward(device, compute, weights, kept->x1, stats, scratch_gradient, dy, dx1, gradients);
}

}  // namespace seqpar
