// The second phase: the layers of the job with this rank's part of the weights and the inputs, and nothing
// more, from files or seeds.
#ifndef SEQPAR_WORKER_EXECUTOR_SHARD_H_
#define SEQPAR_WORKER_EXECUTOR_SHARD_H_

#include <deque>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/base/data_roots.h"
#include "common/job/plan.h"
#include "common/job/tensors.h"
#include "common/layers/layer_plan.h"
#include "common/layers/layer_stack.h"
#include "common/layers/weight_table.h"
#include "seqpar/v1/fleet.pb.h"
#include "worker/executor/tensor_reader.h"
#include "worker/executor/transfer.h"

namespace seqpar {

// What executes: destroyed in reverse order.
struct ShardedModel {
  int first_layer = 0;  // of the job, that the stack has: those before it are done
  std::unique_ptr<TransformerLayer> layer;
  std::deque<WeightSet> weights;  // one a layer, of the job's dtype; a deque keeps them where they are
  std::unique_ptr<LayerStack> stack;
};

// What `rank` needs to know of the job's layers.
LayerPlan MakeLayerPlan(const JobSpec& job, const Plan& plan, int rank);

// The layer stack of `rank` with its weights, input and (with backward) output gradient loaded. Where
// `checkpoints` names a file, its layers are left out, and it is the input. Paths are resolved within
// `roots`. Errors: as OpenTensorReader, and OUT_OF_MEMORY.
absl::StatusOr<ShardedModel> LoadShard(const JobSpec& job, const Plan& plan, int rank, const DataRoots& roots,
                                       const RankStreams& streams, const RankGroups* groups,
                                       const v1::Checkpoints& checkpoints, Transfers* transfers);

// A file under `roots`, or a seed. `roots` outlives the reader.
absl::StatusOr<std::unique_ptr<TensorReader>> OpenSource(const Source& source, const DataRoots& roots);

// Loads the slices of one layer's weights.
absl::Status LoadLayer(const ModelConfig& config, int layer, TensorReader* reader, const WeightSet& set,
                       Transfers* transfers);

// The slice in its set as the matrix of a TensorBlock: a vector is a column.
Matrix AsBlock(const WeightSet& set, const WeightSlice& slice);

// "model.layers.3.mlp.up_proj.weight"
std::string WeightName(int layer, const WeightSlice& slice);

// A [batch, tokens, hidden] tensor of the job: hidden_states and its like.
WeightInfo TokenTensor(const JobSpec& job, const std::string& name);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_SHARD_H_
