#include "worker/executor/shard.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/failpoints.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

absl::Status LoadTokenMatrix(const JobSpec& job, const std::string& name, const Source& source,
                             const TokenShare& share, const DataRoots& roots, Transfers* transfers,
                             const Matrix& to) {
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<TensorReader> reader, OpenSource(source, roots));
  return transfers->LoadTokens(reader.get(), TokenTensor(job, name), share, to);
}

}  // namespace

LayerPlan MakeLayerPlan(const JobSpec& job, const Plan& plan, int rank) {
  LayerPlan layer;
  layer.config = job.config;
  layer.dtype = job.dtype;
  layer.batch = job.batch;
  layer.mask = job.mask.Make(job.tokens);
  layer.tokens = plan.MakeTokenLayout();
  layer.strategy = plan.strategy;
  layer.core = plan.core;
  layer.backward = job.backward();
  layer.recompute = plan.recompute;
  layer.inspect = job.verify_rows > 0;
  layer.rank = rank;
  return layer;
}

absl::StatusOr<std::unique_ptr<TensorReader>> OpenSource(const Source& source, const DataRoots& roots) {
  SEQPAR_RETURN_IF_ERROR(Failpoint("executor.shard.open"));
  if (source.seed.has_value()) return MakeSeededReader(*source.seed);
  SEQPAR_ASSIGN_OR_RETURN(const std::string path, roots.Resolve(source.file));
  // The reader may open files later: the roots live as long as the process.
  return OpenTensorReader(path,
                          [&roots](const std::string& file, int flags) { return roots.Open(file, flags); });
}

absl::Status LoadLayer(const ModelConfig& config, int layer, TensorReader* reader, const WeightSet& set,
                       Transfers* transfers) {
  const std::vector<WeightInfo> infos = LayerWeights(config, layer);
  for (const WeightSlice& slice : set.table().slices()) {
    const std::string name = WeightName(layer, slice);
    const auto info =
        std::find_if(infos.begin(), infos.end(), [&](const WeightInfo& i) { return i.name == name; });
    SEQPAR_CHECK(info != infos.end() && info->shape == slice.shape);
    SEQPAR_RETURN_IF_ERROR(transfers->Load(reader, *info, {slice.rows, 1, slice.cols}, AsBlock(set, slice)));
  }
  return absl::OkStatus();
}

Matrix AsBlock(const WeightSet& set, const WeightSlice& slice) {
  const Matrix matrix = set.Get(slice.id);
  return slice.vector() ? Matrix(matrix.data, matrix.dtype, matrix.cols, 1) : matrix;
}

std::string WeightName(int layer, const WeightSlice& slice) {
  return absl::StrCat("model.layers.", layer, ".", slice.suffix);
}

WeightInfo TokenTensor(const JobSpec& job, const std::string& name) {
  return {name, {job.batch, job.tokens, job.config.hidden_size}, 1.0, 0};
}

absl::StatusOr<ShardedModel> LoadShard(const JobSpec& job, const Plan& plan, int rank, const DataRoots& roots,
                                       const RankStreams& streams, const RankGroups* groups,
                                       const v1::Checkpoints& checkpoints, Transfers* transfers) {
  ShardedModel model;
  Source input = job.input;
  if (checkpoints.layers() > 0) {
    model.first_layer = checkpoints.layers();
    input = Source{checkpoints.file(), {}};
  }
  SEQPAR_ASSIGN_OR_RETURN(model.layer,
                          TransformerLayer::Create(MakeLayerPlan(job, plan, rank), streams, groups));

  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<TensorReader> reader, OpenSource(job.weights, roots));
  std::vector<const WeightSet*> sets;
  for (int layer = model.first_layer; layer < job.config.layers; ++layer) {
    SEQPAR_ASSIGN_OR_RETURN(WeightSet set,
                            WeightSet::Create(&model.layer->table(), streams.device, job.dtype, "weights"));
    SEQPAR_RETURN_IF_ERROR(LoadLayer(job.config, layer, reader.get(), set, transfers));
    model.weights.push_back(std::move(set));
    sets.push_back(&model.weights.back());
  }

  SEQPAR_ASSIGN_OR_RETURN(model.stack,
                          LayerStack::Create(model.layer.get(), streams, groups, std::move(sets)));
  const TokenShare& tokens = plan.ranks[rank].tokens;
  SEQPAR_RETURN_IF_ERROR(
      LoadTokenMatrix(job, kHiddenStates, input, tokens, roots, transfers, model.stack->input()));
  if (!job.backward()) return model;
  SEQPAR_RETURN_IF_ERROR(LoadTokenMatrix(job, kGradOutput, job.grad_output, tokens, roots, transfers,
                                         model.stack->output_gradient()));
  return model;
}

}  // namespace seqpar
