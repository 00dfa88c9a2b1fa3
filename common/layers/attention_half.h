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
#include "common/device/carve.h"
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
  Matrix q;      // [group rows, hq head_dim], rotated; of all layers where the core does not read it again
  Matrix kv;     // [group rows, 2 hkv head_dim], K rotated; likewise
  Matrix out;    // as q
  std::unique_ptr<AttentionState> state;
};

class AttentionHalf {
 public:
  // `axis` and `rows` are shared with the other half and outlive this one.
  static absl::StatusOr<std::unique_ptr<AttentionHalf>> Create(const LayerPlan& plan,
                                                               const RankStreams& streams,
                                                               const RankGroups& groups, TensorAxis* axis,
                                                               const NormRows* rows);

  // --- memory, before the first call ---
  // q, K and V where they are not kept, and gradients of the output, of q, K and V as far as they have no
  // place elsewhere; `spare_bytes`: of what Backward is given to spare.
  void AddScratch(Carver* carver, int64_t spare_bytes);
  int64_t CoreScratchBytes() const;
  void UseCoreScratch(void* scratch) { core_scratch_ = scratch; }

  absl::StatusOr<std::shared_ptr<AttentionActivations>> NewActivations();
  // x1 is not x. Traffic of the tensor axis is counted under `pass`.
  void Forward(Pass pass, const WeightSet& weights, const Matrix& x, AttentionActivations* kept,
               const Matrix& x1);
  // Forward without its last product: what backward needs, where only x was kept.
  void Recompute(const WeightSet& weights, const Matrix& x, AttentionActivations* kept);
  // dx may be dx1. `spare`: memory that nobody reads any more, for the gradient of the output. Uses `kept`
  // up.
  void Backward(const WeightSet& weights, const Matrix& x, AttentionActivations* kept, const Matrix& dx1,
                const WeightSet& gradients, void* spare, const Matrix& dx);

  // What the innermost core saw last with `kept`; with backward where plan.inspect was set.
  AttentionView View(const AttentionActivations& kept, bool backward) const;

 private:
  AttentionHalf(const LayerPlan& plan, const RankStreams& streams, TensorAxis* axis, const NormRows* rows)
      : plan_(plan), streams_(streams), axis_(axis), rows_(rows) {}
  absl::Status UploadRotaryTable();
  void Attend(Pass pass, const WeightSet& weights, const Matrix& x, AttentionActivations* kept);
  void Rotate(const Matrix& q, const Matrix& kv, bool inverse);
  // dQ, dK and dV take the place of q, K and V.
  bool replaces_inputs() const {
    return !core_->ReadsInputsAgain() || (plan_.dtype != DType::kF32 && !plan_.inspect);
  }
  int64_t q_cols() const { return int64_t{core_->heads().q_heads()} * plan_.config.head_dim; }
  int64_t kv_cols() const { return int64_t{2} * core_->heads().kv_heads() * plan_.config.head_dim; }

  const LayerPlan plan_;
  const RankStreams streams_;
  TensorAxis* const axis_;
  const NormRows* const rows_;
  Norm norm_;
  std::unique_ptr<AttentionCore> core_;
  Buffer rotary_;  // float32 [tokens of the tensor group, head_dim]; empty without rotary
  void* core_scratch_ = nullptr;
  Matrix q_, kv_;  // where they are not kept
  bool dout_in_spare_ = false;
  Matrix dout_;
  Matrix dq_, dkv_;            // of the core; empty where they take the place of q, K and V
  Matrix dq_back_, dkv_back_;  // rotated back; empty where that is done in place
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_ATTENTION_HALF_H_
