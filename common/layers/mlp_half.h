// The second half of a layer: x1 + mlp(norm(x1)).
//
// F is the tensor rank's part of the intermediate size; gate and up lie side by side in one matrix.
// Forward: h = norm(x1); H = gather(h); [gate | up] = H [Wg; Wu]'; y = x1 + scatter(act(gate, up) Wd').
// Backward of dy: DY = gather(dy); a = act(gate, up) again, dWd += DY' a; da = DY Wd; [dgate | dup] in place
// of [gate | up]; H gathered again; dWg, dWu += [dgate | dup]' H; dh = scatter([dgate | dup] [Wg; Wu]); dx1 =
// norm'(dh) + dy.
#ifndef SEQPAR_COMMON_LAYERS_MLP_HALF_H_
#define SEQPAR_COMMON_LAYERS_MLP_HALF_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/attention/core.h"
#include "common/layers/layer_plan.h"
#include "common/layers/norm.h"
#include "common/layers/tensor_axis.h"
#include "common/layers/weight_table.h"

namespace seqpar {

// What backward needs of a forward, which it uses up.
struct MlpActivations {
  Buffer buffer;
  Matrix x1;       // [own rows, D], the input
  Matrix stats;    // float32 [own rows, 2], of the norm
  Matrix gate_up;  // [group rows, 2 F], or [group rows, F] where nothing is gated
};

class MlpHalf {
 public:
  // REQUIRES: the configuration has an MLP. `axis` and `scratch` as in AttentionHalf; `table` is the layer's.
  static absl::StatusOr<std::unique_ptr<MlpHalf>> Create(const LayerPlan& plan, const RankStreams& streams,
                                                         const WeightTable& table, TensorAxis* axis,
                                                         const Matrix& scratch);

  absl::StatusOr<std::shared_ptr<MlpActivations>> NewActivations();
  // From kept->x1. y is not x1.
  void Forward(const WeightSet& weights, MlpActivations* kept, const Matrix& y);
  // Forward without its last product: what backward needs, where only x1 is there.
  void Recompute(const WeightSet& weights, MlpActivations* kept);
  // `scratch_gradient`: [own rows, D], overwritten. dx1 is neither it nor dy.
  void Backward(const WeightSet& weights, MlpActivations* kept, const Matrix& dy, const WeightSet& gradients,
                const Matrix& scratch_gradient, const Matrix& dx1);

 private:
  MlpHalf(const LayerPlan& plan, const RankStreams& streams, int64_t width, TensorAxis* axis,
          const Matrix& scratch)
      : plan_(plan), streams_(streams), width_(width), axis_(axis), scratch_(scratch) {}
  bool gated() const { return plan_.config.mlp == MlpKind::kSwiglu; }
  Matrix Up(const Matrix& gate_up) const { return gated() ? gate_up.Cols(width_, 2 * width_) : gate_up; }
  Matrix Gate(const Matrix& gate_up) const { return gate_up.Cols(0, width_); }
  // The weights (or biases, or gradients) of gate and up as one.
  Matrix GateUp(const WeightSet& set) const;
  Matrix GateUpBias(const WeightSet& set) const;
  Matrix Expand(Pass pass, const WeightSet& weights, MlpActivations* kept);
  void Activate(const MlpActivations& kept);

  const LayerPlan plan_;
  const RankStreams streams_;
  const int64_t width_;  // F
  TensorAxis* const axis_;
  const Matrix scratch_;
  Norm norm_;
  Buffer buffer_;
  Matrix activated_;  // [group rows, F]; its gradient in backward
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_MLP_HALF_H_
