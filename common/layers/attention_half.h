// The first half of a layer: x + attention(norm(x)).
//
// Shapes: own rows and group rows as in tensor_axis.h; hq and hkv are the query and KV heads of the tensor
// rank. Forward: h = norm(x); H = gather(h); q = H Wq', kv = H [Wk; Wv]'; rotary on q and K; out = core(q,
// kv); x1 = x + scatter(out Wo'). Backward of dx1: DY = gather(dx1); dout = DY Wo, dWo += DY' out; core;
// rotary back; H gathered again; dWq += dq' H, dWkv += dkv' H; dh = scatter(dq Wq + dkv [Wk; Wv]); dx =
// norm'(dh) + dx1.
#ifndef SEQPAR_COMMON_LAYERS_ATTENTION_HALF_H_
#define SEQPAR_COMMON_LAYERS_ATTENTION_HALF_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/attention/core.h"
#include "common/layers/layer_plan.h"
#include "common/layers/norm.h"
#include "common/layers/rank_groups.h"
#include "common/layers/tensor_axis.h"
#include "common/layers/weight_table.h"

namespace seqpar {

// What backward needs of a forward besides x.
struct AttentionActivations {
  Buffer buffer;
  Matrix stats;  // float32 [own rows, 2], of the norm
  Matrix q;      // [group rows, hq head_dim], rotated
  Matrix kv;     // [group rows, 2 hkv head_dim], K rotated
  Matrix out;    // as q
  std::unique_ptr<AttentionState> state;
};

class AttentionHalf {
 public:
  // `axis` and `scratch` (own rows of the layer, [own rows, D]) are shared with the other half and outlive
  // this one.
  static absl::StatusOr<std::unique_ptr<AttentionHalf>> Create(const LayerPlan& plan,
                                                               const RankStreams& streams,
                                                               const RankGroups& groups, TensorAxis* axis,
                                                               const Matrix& scratch);

  absl::StatusOr<std::shared_ptr<AttentionActivations>> NewActivations();
  // x1 is not x. Traffic of the tensor axis is counted under `pass`.
  absl::Status Forward(Pass pass, const WeightSet& weights, const Matrix& x, AttentionActivations* kept,
                       const Matrix& x1);
  // Forward without its last product: what backward needs, where only x was kept.
  absl::Status Recompute(const WeightSet& weights, const Matrix& x, AttentionActivations* kept);
  // dx may be dx1. `scratch_gradient`: [own rows, D], overwritten; may be `scratch` where there is a norm.
  absl::Status Backward(const WeightSet& weights, const Matrix& x, AttentionActivations* kept,
                        const Matrix& dx1, const WeightSet& gradients, const Matrix& scratch_gradient,
                        const Matrix& dx);

  // What the innermost core saw last with `kept`; with backward where plan.inspect was set.
  AttentionView View(const AttentionActivations& kept, bool backward) const;

 private:
  AttentionHalf(const LayerPlan& plan, const RankStreams& streams, TensorAxis* axis, const Matrix& scratch)
      : plan_(plan), streams_(streams), axis_(axis), scratch_(scratch) {}
  absl::Status AllocateScratch();
  absl::Status UploadRotaryTable();
  absl::Status Attend(Pass pass, const WeightSet& weights, const Matrix& x, AttentionActivations* kept);
  void Rotate(const Matrix& q, const Matrix& kv, bool inverse);
  int64_t q_cols() const { return int64_t{core_->heads().q_heads()} * plan_.config.head_dim; }
  int64_t kv_cols() const { return int64_t{2} * core_->heads().kv_heads() * plan_.config.head_dim; }

  const LayerPlan plan_;
  const RankStreams streams_;
  TensorAxis* const axis_;
  const Matrix scratch_;
  Norm norm_;
  std::unique_ptr<AttentionCore> core_;
  Buffer rotary_;  // float32 [tokens of the tensor group, head_dim]; empty without rotary
  Buffer backward_buffer_;
  Matrix dout_, dq_, dkv_;     // of the core; dq in place of dout where that is allowed and nobody looks
  Matrix dq_back_, dkv_back_;  // rotated back; the same memory unless inspected
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_ATTENTION_HALF_H_
