#include "common/layers/layer_stack.h"

#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/device/carve.h"

namespace seqpar {

absl::StatusOr<std::unique_ptr<LayerStack>> LayerStack::Create(TransformerLayer* layer,
                                                               const RankStreams& streams,
                                                               const RankGroups* groups,
                                                               std::vector<const WeightSet*> weights) {
  SEQPAR_CHECK(!weights.empty());
  std::unique_ptr<LayerStack> stack(new LayerStack(layer, streams, groups, std::move(weights)));
  SEQPAR_RETURN_IF_ERROR(stack->Allocate());
  return absl::StatusOr<std::unique_ptr<LayerStack>>(std::move(stack));
}

absl::Status LayerStack::Allocate() {
  const DType dtype = layer_->plan().dtype;
  hidden_.resize(backward() ? layers() + 1 : 2);
  Carver carver;
  for (Matrix& m : hidden_) carver.Add(&m, dtype, layer_->rows(), layer_->hidden());
  if (backward()) carver.Add(&gradient_, dtype, layer_->rows(), layer_->hidden());
  SEQPAR_ASSIGN_OR_RETURN(buffer_, carver.Allocate(streams_.device, "hidden states"));
  for (int l = 0; l < (backward() ? layers() : 1); ++l) {
    SEQPAR_ASSIGN_OR_RETURN(LayerActivations kept, layer_->NewActivations());
    kept_.push_back(std::move(kept));
  }
  if (!backward()) return absl::OkStatus();
  SEQPAR_ASSIGN_OR_RETURN(WeightSet gradients, WeightSet::Create(&layer_->table(), streams_.device,
                                                                 DType::kF32, "weight gradients"));
  weight_gradients_ = std::make_unique<WeightSet>(std::move(gradients));
  return absl::OkStatus();
}

const Matrix& LayerStack::output() const { return Hidden(layers()); }

absl::Status LayerStack::Forward(const LayerCallback& done) {
  for (int l = 0; l < layers(); ++l) {
    const LayerActivations& kept = kept_[backward() ? l : 0];
    layer_->Forward(*weights_[l], Hidden(l), kept, Hidden(l + 1));
    LayerStep step;
    step.layer = l;
    step.x = Hidden(l);
    step.y = Hidden(l + 1);
    step.weights = weights_[l];
    step.attention = [this, &kept] { return layer_->View(kept, false); };
    SEQPAR_RETURN_IF_ERROR(Finish(step, done));
  }
  return absl::OkStatus();
}

absl::Status LayerStack::Backward(const LayerCallback& done) {
  SEQPAR_CHECK(backward());
  for (int l = layers() - 1; l >= 0; --l) {
    layer_->Backward(*weights_[l], Hidden(l), kept_[l], gradient_, *weight_gradients_, gradient_);
    ReduceWeightGradients(*weight_gradients_, *groups_, *streams_.compute, *streams_.comm);
    LayerStep step;
    step.pass = Pass::kBackward;
    step.layer = l;
    step.x = Hidden(l);
    step.dx = gradient_;
    step.weights = weights_[l];
    step.gradients = weight_gradients_.get();
    step.attention = [this, l] { return layer_->View(kept_[l], true); };
    SEQPAR_RETURN_IF_ERROR(Finish(step, done));
  }
  return absl::OkStatus();
}

absl::Status LayerStack::Finish(const LayerStep& step, const LayerCallback& done) {
  for (Stream* stream : {streams_.compute, streams_.comm}) {
    if (const absl::Status status = stream->Synchronize(); !status.ok()) return GiveUp(status);
  }
  return done ? done(step) : absl::OkStatus();
}

// Kernels and messages that are on their way read and write memory that goes with the stack. What has not
// begun is skipped, what waits for a peer fails.
absl::Status LayerStack::GiveUp(const absl::Status& why) {
  for (Stream* stream : {streams_.compute, streams_.comm}) stream->Fail(why);
  groups_->world()->Abort(why);
  for (Stream* stream : {streams_.compute, streams_.comm}) stream->Synchronize().IgnoreError();
  return why;
}

}  // namespace seqpar
