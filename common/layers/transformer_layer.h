// A transformer layer over the ranks of a mesh: x + attention(norm(x)), then + mlp(norm(.)); without an MLP
// the second half, its norm included, is absent.
#ifndef SEQPAR_COMMON_LAYERS_TRANSFORMER_LAYER_H_
#define SEQPAR_COMMON_LAYERS_TRANSFORMER_LAYER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/layers/attention_half.h"
#include "common/layers/layer_plan.h"
#include "common/layers/mlp_half.h"
#include "common/layers/rank_groups.h"
#include "common/layers/tensor_axis.h"
#include "common/layers/weight_table.h"

namespace seqpar {

// What backward needs of one layer's forward, besides its input. Parts that are computed again are shared by
// all layers.
struct LayerActivations {
  std::shared_ptr<AttentionActivations> attention;
  std::shared_ptr<MlpActivations> mlp;  // null without an MLP
};

// One object computes every layer of a job, which differ in weights only. Calls enqueue on the rank's streams
// and return at once; errors are sticky in the streams. All ranks of the mesh make the same calls in the same
// order.
class TransformerLayer {
 public:
  // `streams` and `groups` outlive the layer. INVALID_ARGUMENT where the mesh is none for these heads
  // (CheckMesh); RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<TransformerLayer>> Create(const LayerPlan& plan,
                                                                  const RankStreams& streams,
                                                                  const RankGroups* groups);

  const LayerPlan& plan() const { return plan_; }
  const WeightTable& table() const { return table_; }
  // [own rows, D]: the shape of inputs, outputs and their gradients. Row = token * batch + batch index.
  int64_t rows() const { return axis_.own_rows(); }
  int64_t hidden() const { return plan_.config.hidden_size; }

  // Kept activations of one layer; in what plan.recompute says all layers share, they share memory.
  absl::StatusOr<LayerActivations> NewActivations();
  void Forward(const WeightSet& weights, const Matrix& x, const LayerActivations& kept, const Matrix& y);
  // x as given to Forward. dx may be dy, but not x. Writes this rank's part to `gradients` (float32), which
  // ReduceWeightGradients completes; uses `kept` up.
  void Backward(const WeightSet& weights, const Matrix& x, const LayerActivations& kept, const Matrix& dy,
                const WeightSet& gradients, const Matrix& dx);

  // What the innermost attention core saw in the last call, which was with `kept`. `backward`: after
  // Backward, with plan.inspect.
  AttentionView View(const LayerActivations& kept, bool backward) const {
    return attention_->View(*kept.attention, backward);
  }

 private:
  TransformerLayer(const LayerPlan& plan, const RankStreams& streams, const RankGroups* groups)
      : plan_(plan),
        streams_(streams),
        groups_(groups),
        table_(plan.config, plan.mesh(), plan.Heads(), plan.rank),
        axis_(plan, streams, groups->tensor()) {}
  absl::Status Allocate();

  const LayerPlan plan_;
  const RankStreams streams_;
  const RankGroups* const groups_;
  const WeightTable table_;
  TensorAxis axis_;
  Buffer scratch_;  // layer_scratch.h
  NormRows rows_;
  std::unique_ptr<AttentionHalf> attention_;
  std::unique_ptr<MlpHalf> mlp_;  // null without an MLP
  LayerActivations shared_;       // made at first use
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_TRANSFORMER_LAYER_H_
