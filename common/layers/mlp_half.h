// The second half of a layer: x1 + mlp(norm(x1)).
//
// F is the tensor rank's part of the intermediate size; gate and up lie side by side in one matrix.
// Forward: h = norm(x1); H = gather(h); [gate | up] = H [Wg; Wu]'; y = x1 + scatter(act(gate, up) Wd').
// Backward of dy: DY = gather(dy); H gathered again; a = act(gate, up) again, dWd += DY' a; da = DY Wd;
// [dgate | dup] in place of [gate | up]; dWg, dWu += [dgate | dup]' H; dh = scatter([dgate | dup] [Wg; Wu]);
// dx1 = norm'(dh) + dy. Everything between gather and scatter runs piece by piece of the rows (mlp_pieces.h).
// Where backward computes [gate | up] again it does so for a piece, just before it needs it, from the H that
// it has gathered anyway: no traffic more, and nothing of the intermediate width is ever whole.
#ifndef SEQPAR_COMMON_LAYERS_MLP_HALF_H_
#define SEQPAR_COMMON_LAYERS_MLP_HALF_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/attention/core.h"
#include "common/device/carve.h"
#include "common/layers/layer_plan.h"
#include "common/layers/norm.h"
#include "common/layers/tensor_axis.h"
#include "common/layers/weight_table.h"

namespace seqpar {

// What backward needs of a forward, which it uses up.
struct MlpActivations {
  Buffer buffer;
  Matrix x1;     // [own rows, D], the input
  Matrix stats;  // float32 [own rows, 2], of the norm
  Matrix
      gate_up;  // [group rows, 2 F], or [group rows, F] where nothing is gated; empty where it is made again
};

class MlpHalf {
 public:
  // REQUIRES: the configuration has an MLP. `axis` and `rows` as in AttentionHalf; `table` is the layer's.
  MlpHalf(const LayerPlan& plan, const RankStreams& streams, const WeightTable& table, TensorAxis* axis,
          const NormRows* rows);

  // Memory for one piece of the rows; before the first call.
  void AddPieces(Carver* carver);
  // Of activations that Backward has used up, at least, on every tensor rank.
  int64_t SpareBytes() const;

  absl::StatusOr<std::shared_ptr<MlpActivations>> NewActivations();
  // From kept->x1. y is not x1.
  void Forward(const WeightSet& weights, MlpActivations* kept, const Matrix& y);
  // dx1 may be dy.
  void Backward(const WeightSet& weights, MlpActivations* kept, const Matrix& dy, const WeightSet& gradients,
                const Matrix& dx1);

 private:
  bool gated() const { return plan_.config.mlp == MlpKind::kSwiglu; }
  Matrix Up(const Matrix& gate_up) const { return gated() ? gate_up.Cols(width_, 2 * width_) : gate_up; }
  Matrix Gate(const Matrix& gate_up) const { return gate_up.Cols(0, width_); }
  // The weights (or biases, or gradients) of gate and up as one.
  Matrix GateUp(const WeightSet& set) const;
  Matrix GateUpBias(const WeightSet& set) const;
  int64_t piece_rows() const { return MlpPieceRows(axis_->group_rows(), plan_.mlp_piece_rows); }
  int64_t expanded_cols() const { return (gated() ? 2 : 1) * width_; }
  Carver Carve(int64_t own_rows, MlpActivations* kept) const;
  // Calls piece(begin, end) for the rows of each, at least once.
  template <typename Piece>
  void ForPieces(const Piece& piece) const;
  // Where [gate | up] of these rows is, or is to be.
  Matrix Expanded(const MlpActivations& kept, int64_t begin, int64_t end) const;
  // Fills it from rows of the gathered input.
  void Expand(const WeightSet& weights, const Matrix& input, const Matrix& gate_up);
  void Activate(const Matrix& gate_up, const Matrix& activated);

  const LayerPlan plan_;
  const RankStreams streams_;
  const int64_t width_;  // F
  TensorAxis* const axis_;
  const NormRows* const rows_;
  const Norm norm_;
  Matrix activated_;  // [rows of a piece, F]; in backward its gradient first
  Matrix expanded_;   // [rows of a piece, 2 F or F], where forward keeps none
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_MLP_HALF_H_
