// The layers of a job in order, forward and backward, with memory reused from layer to layer.
#ifndef SEQPAR_COMMON_LAYERS_LAYER_STACK_H_
#define SEQPAR_COMMON_LAYERS_LAYER_STACK_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/layers/transformer_layer.h"

namespace seqpar {

// A layer that has just happened, for progress, verification, checkpoints and writing gradients. Valid during
// the call.
struct LayerStep {
  Pass pass = Pass::kForward;
  int layer = 0;
  Matrix x, y;  // input and output [rows, D]; in backward y is empty
  Matrix dx;    // backward only; where the gradient of the output was
  const WeightSet* weights = nullptr;
  const WeightSet* gradients = nullptr;  // backward only: summed over all ranks that hold them
  std::function<AttentionView()> attention;
};

// Called on the host with both streams idle. Its error ends the run.
using LayerCallback = std::function<absl::Status(const LayerStep&)>;

class LayerStack {
 public:
  // `layer` and `weights` (one a layer, not empty) outlive the stack. RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<LayerStack>> Create(TransformerLayer* layer,
                                                            const RankStreams& streams,
                                                            const RankGroups* groups,
                                                            std::vector<const WeightSet*> weights);

  // [rows, D] of the storage type, to be filled before a call: the input of the first layer, and for Backward
  // the gradient of the last layer's output.
  const Matrix& input() const { return hidden_.front(); }
  const Matrix& output_gradient() const { return gradient_; }
  // The output of the last layer; the gradient of the input after Backward, where that of the output was.
  const Matrix& output() const;
  const Matrix& input_gradient() const { return gradient_; }

  // Blocks until done: the first error of the rank's streams or of the callback. `done` may be empty. After
  // an error, too, nothing uses the stack's memory any more; one that is not the callback's has aborted the
  // world's communication and failed both streams, so that nobody waits for this rank, nor it for anybody.
  absl::Status Forward(const LayerCallback& done);
  // After Forward, once. REQUIRES: the plan has backward. Layers run from last to first.
  absl::Status Backward(const LayerCallback& done);

 private:
  LayerStack(TransformerLayer* layer, const RankStreams& streams, const RankGroups* groups,
             std::vector<const WeightSet*> weights)
      : layer_(layer), streams_(streams), groups_(groups), weights_(std::move(weights)) {}
  absl::Status Allocate();
  absl::Status Finish(const LayerStep& step, const LayerCallback& done);
  absl::Status GiveUp(const absl::Status& why);
  int layers() const { return static_cast<int>(weights_.size()); }
  bool backward() const { return layer_->plan().backward; }
  // The input of layer l, and the output of the last where l is the number of layers.
  const Matrix& Hidden(int l) const { return backward() ? hidden_[l] : hidden_[l % 2]; }

  TransformerLayer* const layer_;
  const RankStreams streams_;
  const RankGroups* const groups_;
  const std::vector<const WeightSet*> weights_;
  Buffer buffer_;
  std::vector<Matrix> hidden_;  // every layer's input and the output where backward follows, else two in turn
  Matrix gradient_;             // of a layer's output, then of its input
  std::vector<LayerActivations> kept_;
  std::unique_ptr<WeightSet> weight_gradients_;  // of one layer
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_LAYERS_LAYER_STACK_H_
