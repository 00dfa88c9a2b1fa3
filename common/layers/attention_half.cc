#include "common/layers/attention_half.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr Operation kOperation = Operation::kTensorAttention;

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionHalf>> AttentionHalf::Create(const LayerPlan& plan,
                                                                     const RankStreams& streams,
                                                                     const RankGroups& groups,
                                                                     TensorAxis* axis, const NormRows* rows) {
  std::unique_ptr<AttentionHalf> half(new AttentionHalf(plan, streams, axis, rows));
  half->norm_ = {plan.config.norm, static_cast<float>(plan.config.norm_eps), WeightId::kInputNorm,
                 WeightId::kInputNormBias};
  SEQPAR_ASSIGN_OR_RETURN(half->core_,
                          MakeAttention(plan.Attention(), streams, {groups.ulysses(), groups.ring()}));
  if (plan.config.rope_theta.has_value()) SEQPAR_RETURN_IF_ERROR(half->UploadRotaryTable());
  return absl::StatusOr<std::unique_ptr<AttentionHalf>>(std::move(half));
}

void AttentionHalf::AddScratch(Carver* carver, int64_t spare_bytes) {
  if (!core_->ReadsInputsAgain()) {
    carver->Add(&q_, plan_.dtype, axis_->group_rows(), q_cols());
    carver->Add(&kv_, plan_.dtype, axis_->group_rows(), kv_cols());
  }
  if (!plan_.backward) return;
  dout_ = Matrix(nullptr, plan_.dtype, axis_->group_rows(), q_cols());
  dout_in_spare_ = dout_.bytes() <= spare_bytes;
  if (!dout_in_spare_) carver->Add(&dout_, plan_.dtype, axis_->group_rows(), q_cols());
  if (replaces_inputs()) return;
  carver->Add(&dq_, plan_.dtype, axis_->group_rows(), q_cols());
  carver->Add(&dkv_, plan_.dtype, axis_->group_rows(), kv_cols());
  if (!plan_.inspect || !plan_.config.rope_theta.has_value()) return;
  carver->Add(&dq_back_, plan_.dtype, axis_->group_rows(), q_cols());
  carver->Add(&dkv_back_, plan_.dtype, axis_->group_rows(), kv_cols());
}

int64_t AttentionHalf::CoreScratchBytes() const {
  const int64_t forward = core_->ScratchBytes(Pass::kForward);
  return plan_.backward ? std::max(forward, core_->ScratchBytes(Pass::kBackward)) : forward;
}

// Angles are float64: float32 ones are off by 1e-5 at 1,000 tokens and get worse with length.
absl::Status AttentionHalf::UploadRotaryTable() {
  const TokenShare& tokens = core_->tokens();
  if (tokens.size() == 0) return absl::OkStatus();
  const int dim = plan_.config.head_dim, half = dim / 2;
  std::vector<double> frequencies;
  for (int i = 0; i < half; ++i) frequencies.push_back(std::pow(*plan_.config.rope_theta, -2.0 * i / dim));
  std::vector<float> table(tokens.size() * dim);
  for (int64_t t = 0; t < tokens.size(); ++t) {
    const double position = static_cast<double>(tokens.PositionAt(t));
    for (int i = 0; i < half; ++i) {
      table[t * dim + i] = static_cast<float>(std::cos(position * frequencies[i]));
      table[t * dim + half + i] = static_cast<float>(std::sin(position * frequencies[i]));
    }
  }
  const int64_t bytes = static_cast<int64_t>(table.size()) * 4;
  SEQPAR_ASSIGN_OR_RETURN(rotary_, streams_.device->Allocate(bytes, "rotary table"));
  streams_.device->CopyFromHost(*streams_.compute, table.data(), rotary_.data(), bytes);
  return streams_.compute->Synchronize();  // before the host's table goes
}

absl::StatusOr<std::shared_ptr<AttentionActivations>> AttentionHalf::NewActivations() {
  auto kept = std::make_shared<AttentionActivations>();
  Carver carver;
  carver.Add(&kept->stats, DType::kF32, axis_->own_rows(), 2);
  if (core_->ReadsInputsAgain()) {
    carver.Add(&kept->q, plan_.dtype, axis_->group_rows(), q_cols());
    carver.Add(&kept->kv, plan_.dtype, axis_->group_rows(), kv_cols());
  } else {
    kept->q = q_;
    kept->kv = kv_;
  }
  carver.Add(&kept->out, plan_.dtype, axis_->group_rows(), q_cols());
  SEQPAR_ASSIGN_OR_RETURN(kept->buffer, carver.Allocate(streams_.device, "attention activations"));
  SEQPAR_ASSIGN_OR_RETURN(kept->state, core_->NewState());
  return kept;
}

void AttentionHalf::Rotate(const Matrix& q, const Matrix& kv, bool inverse) {
  if (rotary_.data() == nullptr) return;
  const float* table = static_cast<const float*>(rotary_.data());
  const int dim = plan_.config.head_dim;
  streams_.device->Rotary(*streams_.compute, q, plan_.batch, dim, table, inverse);
  streams_.device->Rotary(*streams_.compute, kv.Cols(0, kv.cols / 2), plan_.batch, dim, table, inverse);
}

void AttentionHalf::Attend(Pass pass, const WeightSet& weights, const Matrix& x, AttentionActivations* kept) {
  Device& device = *streams_.device;
  Stream& compute = *streams_.compute;
  const Matrix h =
      norm_.Forward(device, compute, weights, x, rows_->output, static_cast<float*>(kept->stats.data));
  const Matrix all = axis_->Gather(TensorAxis::Place::kInput, {kOperation, pass}, h);
  const bool biased = weights.Has(WeightId::kQBias);
  const Matrix q_bias = weights.Get(WeightId::kQBias);
  const Matrix kv_bias = biased ? weights.Pair(WeightId::kKBias, WeightId::kVBias) : Matrix();
  device.Gemm(compute, all, false, weights.Get(WeightId::kQ), true, kept->q, false,
              biased ? &q_bias : nullptr);
  device.Gemm(compute, all, false, weights.Pair(WeightId::kK, WeightId::kV), true, kept->kv, false,
              biased ? &kv_bias : nullptr);
  Rotate(kept->q, kept->kv, false);
  core_->Forward(kept->q, kept->kv, kept->out, kept->state.get(), core_scratch_);
}

void AttentionHalf::Forward(Pass pass, const WeightSet& weights, const Matrix& x, AttentionActivations* kept,
                            const Matrix& x1) {
  Attend(pass, weights, x, kept);
  const Matrix bias = weights.Get(WeightId::kOBias);
  if (axis_->alone() && bias.empty()) {
    streams_.device->GemmPlus(*streams_.compute, kept->out, false, weights.Get(WeightId::kO), true, x, x1);
    return;
  }
  const Matrix partial = axis_->PartialOf(x1);
  streams_.device->Gemm(*streams_.compute, kept->out, false, weights.Get(WeightId::kO), true, partial, false,
                        axis_->first() && !bias.empty() ? &bias : nullptr);
  axis_->Scatter({kOperation, pass}, x1);
  streams_.device->Add(*streams_.compute, x, x1, x1);
}

void AttentionHalf::Recompute(const WeightSet& weights, const Matrix& x, AttentionActivations* kept) {
  Attend(Pass::kBackward, weights, x, kept);
}

void AttentionHalf::Backward(const WeightSet& weights, const Matrix& x, AttentionActivations* kept,
                             const Matrix& dx1, const WeightSet& gradients, void* spare, const Matrix& dx) {
  Device& device = *streams_.device;
  Stream& compute = *streams_.compute;
  const TrafficKey key{kOperation, Pass::kBackward};
  if (weights.Has(WeightId::kOBias)) device.AddColumnSums(compute, dx1, gradients.Floats(WeightId::kOBias));
  const Matrix dy = axis_->Gather(TensorAxis::Place::kGradient, key, dx1);
  if (dout_in_spare_) dout_.data = spare;
  device.Gemm(compute, dy, false, weights.Get(WeightId::kO), false, dout_, false, nullptr);
  device.Gemm(compute, dy, true, kept->out, false, gradients.Get(WeightId::kO), false, nullptr);
  Matrix dq = replaces_inputs() ? kept->q : dq_, dkv = replaces_inputs() ? kept->kv : dkv_;
  core_->Backward(kept->q, kept->kv, kept->out, dout_, kept->state.get(), dq, dkv, core_scratch_);
  if (dq_back_.rows > 0) {
    device.Copy(compute, dq, dq_back_);
    device.Copy(compute, dkv, dkv_back_);
    dq = dq_back_;
    dkv = dkv_back_;
  }
  Rotate(dq, dkv, true);

  const Matrix h =
      norm_.Forward(device, compute, weights, x, rows_->output, static_cast<float*>(kept->stats.data));
  const Matrix all = axis_->Gather(TensorAxis::Place::kInput, key, h);
  device.Gemm(compute, dq, true, all, false, gradients.Get(WeightId::kQ), false, nullptr);
  device.Gemm(compute, dkv, true, all, false, gradients.Pair(WeightId::kK, WeightId::kV), false, nullptr);
  if (weights.Has(WeightId::kQBias)) {
    device.AddColumnSums(compute, dq, gradients.Floats(WeightId::kQBias));
    device.AddColumnSums(compute, dkv, gradients.Floats(WeightId::kKBias));  // and V's, which follow
  }
  const Matrix& dh = rows_->gradient;
  const Matrix partial = axis_->PartialOf(dh);
  device.Gemm(compute, dq, false, weights.Get(WeightId::kQ), false, partial, false, nullptr);
  device.Gemm(compute, dkv, false, weights.Pair(WeightId::kK, WeightId::kV), false, partial, true, nullptr);
  axis_->Scatter(key, dh);
  norm_.Backward(device, compute, weights, x, static_cast<const float*>(kept->stats.data), dh, dx1, dx,
                 gradients);
}

AttentionView AttentionHalf::View(const AttentionActivations& kept, bool backward) const {
  AttentionView outer;
  outer.backward = backward;
  outer.tokens = core_->tokens();
  outer.heads = core_->heads();
  outer.q = kept.q;
  outer.kv = kept.kv;
  outer.out = kept.out;
  if (backward) {
    outer.dout = dout_;
    outer.dq = replaces_inputs() ? kept.q : dq_;
    outer.dkv = replaces_inputs() ? kept.kv : dkv_;
  }
  return core_->Innermost(outer, *kept.state);
}

}  // namespace seqpar
