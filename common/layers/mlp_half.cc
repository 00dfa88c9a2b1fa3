#include "common/layers/mlp_half.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr Operation kOperation = Operation::kTensorMlp;

}  // namespace

MlpHalf::MlpHalf(const LayerPlan& plan, const RankStreams& streams, const WeightTable& table,
                 TensorAxis* axis, const NormRows* rows)
    : plan_(plan),
      streams_(streams),
      width_(table.intermediate().size()),
      axis_(axis),
      rows_(rows),
      norm_{plan.config.norm, static_cast<float>(plan.config.norm_eps), WeightId::kPostNorm,
            WeightId::kPostNormBias} {}

void MlpHalf::AddPieces(Carver* carver) {
  carver->Add(&activated_, plan_.dtype, piece_rows(), width_);
  if (!plan_.keeps_mlp()) carver->Add(&expanded_, plan_.dtype, piece_rows(), expanded_cols());
}

int64_t MlpHalf::SpareBytes() const {
  MlpActivations kept;
  return Carve(axis_->least_rows(), &kept).bytes();
}

Carver MlpHalf::Carve(int64_t own_rows, MlpActivations* kept) const {
  Carver carver;
  carver.Add(&kept->x1, plan_.dtype, own_rows, plan_.config.hidden_size);
  carver.Add(&kept->stats, DType::kF32, own_rows, 2);
  if (plan_.keeps_mlp()) carver.Add(&kept->gate_up, plan_.dtype, axis_->group_rows(), expanded_cols());
  return carver;
}

absl::StatusOr<std::shared_ptr<MlpActivations>> MlpHalf::NewActivations() {
  auto kept = std::make_shared<MlpActivations>();
  Carver carver = Carve(axis_->own_rows(), kept.get());
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

template <typename Piece>
void MlpHalf::ForPieces(const Piece& piece) const {
  const int64_t rows = axis_->group_rows();
  int64_t begin = 0;
  do {
    const int64_t end = std::min(rows, begin + piece_rows());
    piece(begin, end);
    begin = end;
  } while (begin < rows);
}

Matrix MlpHalf::Expanded(const MlpActivations& kept, int64_t begin, int64_t end) const {
  return plan_.keeps_mlp() ? kept.gate_up.Rows(begin, end) : expanded_.Rows(0, end - begin);
}

void MlpHalf::Expand(const WeightSet& weights, const Matrix& input, const Matrix& gate_up) {
  const Matrix bias = GateUpBias(weights);
  streams_.device->Gemm(*streams_.compute, input, false, GateUp(weights), true, gate_up, false,
                        weights.Has(WeightId::kUpBias) ? &bias : nullptr);
}

void MlpHalf::Activate(const Matrix& gate_up, const Matrix& activated) {
  const Matrix gate = Gate(gate_up);
  streams_.device->ActivationForward(*streams_.compute, plan_.config.mlp, gated() ? &gate : nullptr,
                                     Up(gate_up), activated);
}

void MlpHalf::Forward(const WeightSet& weights, MlpActivations* kept, const Matrix& y) {
  Device& device = *streams_.device;
  Stream& compute = *streams_.compute;
  const TrafficKey key{kOperation, Pass::kForward};
  const Matrix h =
      norm_.Forward(device, compute, weights, kept->x1, rows_->output, static_cast<float*>(kept->stats.data));
  const Matrix all = axis_->Gather(TensorAxis::Place::kInput, key, h);
  const Matrix partial = axis_->PartialOf(y);
  const Matrix bias = weights.Get(WeightId::kDownBias);
  const bool add_now = axis_->alone() && bias.empty();
  ForPieces([&](int64_t begin, int64_t end) {
    const Matrix gate_up = Expanded(*kept, begin, end), activated = activated_.Rows(0, end - begin);
    Expand(weights, all.Rows(begin, end), gate_up);
    Activate(gate_up, activated);
    if (add_now) {
      device.GemmPlus(compute, activated, false, weights.Get(WeightId::kDown), true,
                      kept->x1.Rows(begin, end), y.Rows(begin, end));
      return;
    }
    device.Gemm(compute, activated, false, weights.Get(WeightId::kDown), true, partial.Rows(begin, end),
                false, axis_->first() && !bias.empty() ? &bias : nullptr);
  });
  if (add_now) return;
  axis_->Scatter(key, y);
  device.Add(compute, kept->x1, y, y);
}

void MlpHalf::Backward(const WeightSet& weights, MlpActivations* kept, const Matrix& dy,
                       const WeightSet& gradients, const Matrix& dx1) {
  Device& device = *streams_.device;
  Stream& compute = *streams_.compute;
  const TrafficKey key{kOperation, Pass::kBackward};
  if (weights.Has(WeightId::kDownBias))
    device.AddColumnSums(compute, dy, gradients.Floats(WeightId::kDownBias));
  const Matrix all_dy = axis_->Gather(TensorAxis::Place::kGradient, key, dy);
  float* stats = static_cast<float*>(kept->stats.data);
  const Matrix h = norm_.Forward(device, compute, weights, kept->x1, rows_->output, stats);
  const Matrix all = axis_->Gather(TensorAxis::Place::kInput, key, h);
  const Matrix& dh = rows_->gradient;
  const Matrix partial = axis_->PartialOf(dh);
  ForPieces([&](int64_t begin, int64_t end) {
    const bool add = begin > 0;  // to the gradients of the pieces before
    const Matrix gate_up = Expanded(*kept, begin, end), activated = activated_.Rows(0, end - begin);
    const Matrix input = all.Rows(begin, end), from = all_dy.Rows(begin, end);
    if (!plan_.keeps_mlp()) Expand(weights, input, gate_up);
    // First its gradient, then itself, which comes of the same pass over gate and up as theirs.
    device.Gemm(compute, from, false, weights.Get(WeightId::kDown), false, activated, false, nullptr);
    const Matrix gate = Gate(gate_up), up = Up(gate_up);
    device.ActivationBackward(compute, plan_.config.mlp, gated() ? &gate : nullptr, up, activated,
                              gated() ? &gate : nullptr, up, &activated);
    device.Gemm(compute, from, true, activated, false, gradients.Get(WeightId::kDown), add, nullptr);
    device.Gemm(compute, gate_up, true, input, false, GateUp(gradients), add, nullptr);
    if (weights.Has(WeightId::kUpBias))
      device.AddColumnSums(compute, gate_up, static_cast<float*>(GateUpBias(gradients).data));
    device.Gemm(compute, gate_up, false, GateUp(weights), false, partial.Rows(begin, end), false, nullptr);
  });
  axis_->Scatter(key, dh);
  norm_.Backward(device, compute, weights, kept->x1, stats, dh, dy, dx1, gradients);
}

}  // namespace seqpar
