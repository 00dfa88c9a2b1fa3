#include "common/layers/layer_stack.h"

#include "gtest/gtest.h"
#include "tests/common/layers/layer_case.h"

namespace seqpar {
namespace {

LayerCase Case(const Mesh& mesh, DType dtype = DType::kF32) {
  LayerCase c;
  c.mesh = mesh;
  ModelConfig& config = c.problem.config;
  config.hidden_size = 24;
  config.heads = 8;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.intermediate_size = 32;
  config.layers = 3;
  c.problem.tokens = 48;
  c.problem.batch = 2;
  c.problem.dtype = dtype;
  c.problem.mask = {MaskKind::kCausal};
  return c;
}

LayerResults Results(const LayerCase& c, bool backward) {
  absl::StatusOr<LayerResults> results = RunLayerCase(c, MakeLayerInputs(c.problem, 1), backward);
  EXPECT_TRUE(results.ok()) << c.ToString() << ": " << results.status();
  return results.ok() ? *std::move(results) : LayerResults();
}

Traffic Total(const LayerResults& results, TrafficKey key) {
  Traffic total;
  for (const auto& sent : results.traffic) {
    const auto found = sent.find(key);
    if (found == sent.end()) continue;
    total.bytes += found->second.bytes;
    total.messages += found->second.messages;
  }
  return total;
}

TEST(LayerStackTest, ForwardAloneGivesTheBitsOfForwardBeforeBackward) {
  const LayerCase c = Case({2, 2, 2, 2});
  EXPECT_TRUE(Results(c, false).y == Results(c, true).y);
}

TEST(LayerStackTest, RecomputingChangesNoBit) {
  LayerCase c = Case({2, 1, 2, 2}, DType::kBF16);
  const LayerResults kept = Results(c, true);
  for (const Recompute recompute : {Recompute::kAttention, Recompute::kLayer}) {
    c.recompute = recompute;
    const LayerResults again = Results(c, true);
    EXPECT_TRUE(again.y == kept.y && again.dx == kept.dx) << c.ToString();
    EXPECT_TRUE(again.gradients == kept.gradients) << c.ToString();
  }
}

TEST(LayerStackTest, SameBitsFromRunToRun) {
  const LayerCase c = Case({2, 2, 2, 1});
  const LayerResults first = Results(c, true), second = Results(c, true);
  EXPECT_TRUE(first.y == second.y && first.dx == second.dx && first.gradients == second.gradients);
}

// docs/formulas.md: 2 (T - 1) / T b M D e forward and 3 backward, for attention and for the MLP; M divides
// here, so that every rank sends as much.
TEST(LayerStackTest, TensorTrafficIsWhatTheFormulaSays) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Mesh& mesh : {Mesh{4, 1, 1, 1}, {2, 1, 2, 1}, {2, 2, 2, 1}}) {
      const LayerCase c = Case(mesh, dtype);
      const LayerResults results = Results(c, true);
      const int64_t group_tokens = c.problem.tokens / (mesh.ulysses * mesh.ring);
      const int64_t once = (mesh.tensor - 1) * group_tokens / mesh.tensor * c.problem.batch *
                           c.problem.config.hidden_size * SizeOf(dtype) * c.problem.config.layers;
      for (const auto& sent : results.traffic) {
        for (const Operation operation : {Operation::kTensorAttention, Operation::kTensorMlp}) {
          EXPECT_EQ(sent.at({operation, Pass::kForward}).bytes, 2 * once) << c.ToString();
          EXPECT_EQ(sent.at({operation, Pass::kBackward}).bytes, 3 * once) << c.ToString();
          EXPECT_EQ(sent.at({operation, Pass::kForward}).messages,
                    2 * (mesh.tensor - 1) * c.problem.config.layers);
        }
      }
    }
  }
}

TEST(LayerStackTest, WithoutTensorRanksOnlyAttentionAndGradientsTravel) {
  const LayerResults results = Results(Case({1, 2, 2, 1}), true);
  for (const auto& sent : results.traffic) {
    EXPECT_EQ(sent.count({Operation::kTensorAttention, Pass::kForward}), 0u);
    EXPECT_EQ(sent.count({Operation::kTensorMlp, Pass::kBackward}), 0u);
    EXPECT_EQ(sent.count({Operation::kUlysses, Pass::kBackward}), 1u);
  }
}

// 2 (g - 1) / g of the elements, four bytes each, in total over the ranks of each group of g.
TEST(LayerStackTest, WeightGradientTrafficIsWhatTheFormulaSays) {
  for (const Mesh& mesh : {Mesh{1, 1, 4, 1}, {4, 1, 1, 1}, {4, 1, 2, 1}, {3, 2, 1, 1}}) {
    const LayerCase c = Case(mesh);
    const ModelConfig& config = c.problem.config;
    const HeadLayout heads(mesh, config.heads, config.kv_heads);
    const int64_t d = config.hidden_size, copies = mesh.ulysses * mesh.ring;
    int64_t elements_sent = 2 * (mesh.size() - 1) * 2 * d;  // two norms, everywhere
    const int64_t sharded = 2 * config.heads * config.head_dim * d + 3 * config.intermediate_size * d;
    elements_sent += 2 * (copies - 1) * sharded;
    for (int head = 0; head < config.kv_heads; ++head) {
      const auto [first, last] = heads.TensorHoldersOf(head);
      elements_sent += 2 * ((last - first) * copies - 1) * 2 * config.head_dim * d;
    }
    const Traffic total = Total(Results(c, true), {Operation::kWeightGradients, Pass::kBackward});
    EXPECT_EQ(total.bytes, elements_sent * 4 * config.layers) << c.ToString();
  }
}

}  // namespace
}  // namespace seqpar
