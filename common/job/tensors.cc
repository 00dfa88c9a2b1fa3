#include "common/job/tensors.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace seqpar {
namespace {

class WeightList {
 public:
  explicit WeightList(int layer) : prefix_(absl::StrCat("model.layers.", layer, ".")) {}

  void AddNorm(const std::string& name, NormKind kind, int64_t size) {
    if (kind == NormKind::kNone) return;
    AddConstant(absl::StrCat(name, ".weight"), size, 1);
    if (kind == NormKind::kLayerNorm) AddConstant(absl::StrCat(name, ".bias"), size, 0);
  }

  void AddLinear(const std::string& name, int64_t out, int64_t in, bool bias) {
    weights_.push_back(
        {absl::StrCat(prefix_, name, ".weight"), {out, in}, in > 0 ? 1.0 / static_cast<double>(in) : 0, 0});
    if (bias) AddConstant(absl::StrCat(name, ".bias"), out, 0);
  }

  std::vector<WeightInfo> Take() { return std::move(weights_); }

 private:
  void AddConstant(const std::string& name, int64_t size, double value) {
    weights_.push_back({absl::StrCat(prefix_, name), {size}, 0, value});
  }

  const std::string prefix_;
  std::vector<WeightInfo> weights_;
};

}  // namespace

std::vector<WeightInfo> LayerWeights(const ModelConfig& config, int layer) {
  const int64_t hidden = config.hidden_size;
  const int64_t q_width = static_cast<int64_t>(config.heads) * config.head_dim;
  const int64_t kv_width = static_cast<int64_t>(config.kv_heads) * config.head_dim;
  WeightList list(layer);
  list.AddNorm("input_layernorm", config.norm, hidden);
  list.AddLinear("self_attn.q_proj", q_width, hidden, config.qkv_bias);
  list.AddLinear("self_attn.k_proj", kv_width, hidden, config.qkv_bias);
  list.AddLinear("self_attn.v_proj", kv_width, hidden, config.qkv_bias);
  list.AddLinear("self_attn.o_proj", hidden, q_width, config.attention_out_bias);
  if (config.mlp != MlpKind::kNone) {
    list.AddNorm("post_attention_layernorm", config.norm, hidden);
    if (config.mlp == MlpKind::kSwiglu) {
      list.AddLinear("mlp.gate_proj", config.intermediate_size, hidden, config.mlp_bias);
    }
    list.AddLinear("mlp.up_proj", config.intermediate_size, hidden, config.mlp_bias);
    list.AddLinear("mlp.down_proj", hidden, config.intermediate_size, config.mlp_bias);
  }
  return list.Take();
}

std::vector<NamedTensorShape> OutputTensors(const JobSpec& job) {
  const std::vector<int64_t> hidden_shape = {job.batch, job.tokens, job.config.hidden_size};
  std::vector<NamedTensorShape> tensors;
  if (job.output_hidden_states) tensors.push_back({kHiddenStates, job.dtype, hidden_shape});
  if (job.output_hidden_grad) tensors.push_back({kHiddenStatesGrad, job.dtype, hidden_shape});
  if (job.output_weight_grads) {
    for (int layer = 0; layer < job.config.layers; ++layer) {
      for (WeightInfo& weight : LayerWeights(job.config, layer)) {
        tensors.push_back({absl::StrCat(weight.name, ".grad"), DType::kF32, std::move(weight.shape)});
      }
    }
  }
  return tensors;
}

std::string BuildOutputHeader(const JobSpec& job, SafetensorsHeader* layout) {
  return BuildSafetensorsHeader(OutputTensors(job), {{"format", "pt"}}, layout);
}

std::string BuildCheckpointHeader(const JobSpec& job, SafetensorsHeader* layout) {
  const std::vector<int64_t> shape = {job.batch, job.tokens, job.config.hidden_size};
  return BuildSafetensorsHeader({{kHiddenStates, job.dtype, shape}}, {{"format", "pt"}}, layout);
}

}  // namespace seqpar
