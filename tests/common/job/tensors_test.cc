#include "common/job/tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace seqpar {
namespace {

using ::testing::ElementsAre;

ModelConfig Config() {
  ModelConfig config;
  config.hidden_size = 8;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 3;
  config.intermediate_size = 10;
  config.layers = 2;
  return config;
}

std::vector<std::string> Names(const ModelConfig& config) {
  std::vector<std::string> names;
  for (const WeightInfo& weight : LayerWeights(config, 1)) names.push_back(weight.name);
  return names;
}

TEST(LayerWeights, LlamaByDefault) {
  EXPECT_THAT(
      Names(Config()),
      ElementsAre("model.layers.1.input_layernorm.weight", "model.layers.1.self_attn.q_proj.weight",
                  "model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.v_proj.weight",
                  "model.layers.1.self_attn.o_proj.weight", "model.layers.1.post_attention_layernorm.weight",
                  "model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight",
                  "model.layers.1.mlp.down_proj.weight"));
}

TEST(LayerWeights, LayerNormAlwaysHasABiasAndBiasesFollowTheirWeights) {
  ModelConfig config = Config();
  config.norm = NormKind::kLayerNorm;
  config.mlp = MlpKind::kGelu;
  config.qkv_bias = config.attention_out_bias = config.mlp_bias = true;
  EXPECT_THAT(Names(config),
              ElementsAre("model.layers.1.input_layernorm.weight", "model.layers.1.input_layernorm.bias",
                          "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.bias",
                          "model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.k_proj.bias",
                          "model.layers.1.self_attn.v_proj.weight", "model.layers.1.self_attn.v_proj.bias",
                          "model.layers.1.self_attn.o_proj.weight", "model.layers.1.self_attn.o_proj.bias",
                          "model.layers.1.post_attention_layernorm.weight",
                          "model.layers.1.post_attention_layernorm.bias", "model.layers.1.mlp.up_proj.weight",
                          "model.layers.1.mlp.up_proj.bias", "model.layers.1.mlp.down_proj.weight",
                          "model.layers.1.mlp.down_proj.bias"));
}

TEST(LayerWeights, WithoutAnMlpItsNormIsAbsentToo) {
  ModelConfig config = Config();
  config.mlp = MlpKind::kNone;
  EXPECT_THAT(Names(config),
              ElementsAre("model.layers.1.input_layernorm.weight", "model.layers.1.self_attn.q_proj.weight",
                          "model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.v_proj.weight",
                          "model.layers.1.self_attn.o_proj.weight"));
  config.norm = NormKind::kNone;
  EXPECT_EQ(Names(config).size(), 4u);
}

TEST(LayerWeights, ShapesAndSeededValues) {
  ModelConfig config = Config();
  config.mlp_bias = true;
  for (const WeightInfo& weight : LayerWeights(config, 0)) {
    SCOPED_TRACE(weight.name);
    const bool is_matrix = weight.shape.size() == 2;
    const bool is_bias = weight.name.find(".bias") != std::string::npos;
    EXPECT_EQ(weight.seeded_variance, is_matrix ? 1.0 / static_cast<double>(weight.shape[1]) : 0);
    EXPECT_EQ(weight.seeded_constant, is_matrix || is_bias ? 0 : 1);
  }
  const std::vector<WeightInfo> weights = LayerWeights(config, 0);
  EXPECT_THAT(weights[0].shape, ElementsAre(8));
  EXPECT_THAT(weights[1].shape, ElementsAre(12, 8));
  EXPECT_THAT(weights[2].shape, ElementsAre(6, 8));
  EXPECT_THAT(weights[4].shape, ElementsAre(8, 12));
  EXPECT_THAT(weights.back().shape, ElementsAre(8));
  EXPECT_THAT(weights[weights.size() - 2].shape, ElementsAre(8, 10));
}

JobSpec BackwardJob() {
  JobSpec job;
  job.config = Config();
  job.dtype = DType::kBF16;
  job.pass = JobPass::kForwardBackward;
  job.batch = 3;
  job.tokens = 5;
  job.output_hidden_states = job.output_hidden_grad = job.output_weight_grads = true;
  return job;
}

TEST(OutputTensors, HoldOnlyWhatWasAskedForInAFixedOrder) {
  JobSpec job = BackwardJob();
  const std::vector<NamedTensorShape> all = OutputTensors(job);
  ASSERT_EQ(all.size(), 2 + 2 * 9u);
  EXPECT_EQ(all[0].name, "hidden_states");
  EXPECT_EQ(all[0].dtype, DType::kBF16);
  EXPECT_THAT(all[0].shape, ElementsAre(3, 5, 8));
  EXPECT_EQ(all[1].name, "hidden_states.grad");
  EXPECT_EQ(all[2].name, "model.layers.0.input_layernorm.weight.grad");
  EXPECT_EQ(all[2].dtype, DType::kF32);
  EXPECT_EQ(all.back().name, "model.layers.1.mlp.down_proj.weight.grad");

  job.output_hidden_states = job.output_weight_grads = false;
  const std::vector<NamedTensorShape> one = OutputTensors(job);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].name, "hidden_states.grad");
}

TEST(BuildOutputHeader, IsAHeaderThatReadsBack) {
  SafetensorsHeader layout;
  const std::string head = BuildOutputHeader(BackwardJob(), &layout);
  const auto parsed = ParseSafetensorsHeader(head, layout.file_bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->tensors.size(), 20u);
  EXPECT_EQ(parsed->metadata.at("format"), "pt");
  EXPECT_EQ(parsed->tensors.at("hidden_states").offset, layout.tensors.at("hidden_states").offset);
}

}  // namespace
}  // namespace seqpar
