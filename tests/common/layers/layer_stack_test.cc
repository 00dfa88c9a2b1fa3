#include "common/layers/layer_stack.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/base/status.h"
#include "gtest/gtest.h"
#include "tests/common/layers/layer_case.h"
#include "tests/oracle/error_rule.h"

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
  for (const Recompute recompute : {Recompute::kMlp, Recompute::kAttention, Recompute::kLayer}) {
    c.recompute = recompute;
    const LayerResults again = Results(c, true);
    EXPECT_TRUE(again.y == kept.y && again.dx == kept.dx) << c.ToString();
    EXPECT_TRUE(again.gradients == kept.gradients) << c.ToString();
  }
}

TEST(LayerStackTest, SameBitsFromRunToRun) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const LayerCase c = Case({2, 2, 2, 1}, dtype);
    const LayerResults first = Results(c, true), second = Results(c, true);
    EXPECT_TRUE(first.y == second.y && first.dx == second.dx && first.gradients == second.gradients)
        << c.ToString();
  }
}

// Memory is shared in another way where somebody looks: what takes the place of what is still read shows.
TEST(LayerStackTest, LookingAtAttentionChangesNoBit) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Mesh& mesh : {Mesh{1, 1, 1, 1}, {2, 2, 2, 2}, {3, 2, 1, 1}}) {
      for (const Recompute recompute : {Recompute::kNone, Recompute::kMlp, Recompute::kLayer}) {
        LayerCase c = Case(mesh, dtype);
        c.problem.config.rope_theta = 100;
        c.recompute = recompute;
        const LayerResults shared = Results(c, true);
        c.inspect = true;
        const LayerResults apart = Results(c, true);
        EXPECT_TRUE(apart.y == shared.y && apart.dx == shared.dx) << c.ToString();
        EXPECT_TRUE(apart.gradients == shared.gradients) << c.ToString();
      }
    }
  }
}

// Pieces that are too many, that do not divide, of one row, and one for all.
TEST(LayerStackTest, PiecesOfTheMlpChangeNoRow) {
  for (const Mesh& mesh : {Mesh{1, 1, 1, 1}, {2, 1, 2, 2}}) {
    LayerCase c = Case(mesh);
    const auto results = [&](int64_t rows) {
      c.mlp_piece_rows = rows;
      return Results(c, true);
    };
    const LayerResults whole = results(1 << 20);
    for (const int64_t rows : {1, 7, 64}) {
      const LayerResults pieces = results(rows);
      // Products of other shapes may sum in another order.
      EXPECT_LT(ErrorOf(pieces.y, whole.y, ScaleOf(whole.y)).norm, 1e-6)
          << c.ToString() << " pieces of " << rows;
      EXPECT_LT(ErrorOf(pieces.dx, whole.dx, ScaleOf(whole.dx)).norm, 1e-6)
          << c.ToString() << " pieces of " << rows;
      for (size_t l = 0; l < whole.gradients.size(); ++l) {
        for (const auto& [name, values] : whole.gradients[l]) {
          EXPECT_LT(ErrorOf(pieces.gradients[l].at(name), values, ScaleOf(values)).norm, 1e-5)
              << name << " pieces of " << rows;
        }
      }
    }
  }
}

// Attention gathers its input once more, and what both halves make again needs the sum between them; the MLP
// is made again from what backward gathers anyway.
TEST(LayerStackTest, RecomputingSendsNoMoreThanItMust) {
  LayerCase c = Case({2, 1, 2, 1});
  const int64_t group_tokens = c.problem.tokens / 2;
  const int64_t once =
      group_tokens / 2 * c.problem.batch * c.problem.config.hidden_size * 4 * c.problem.config.layers;
  const std::pair<Recompute, int> attention[] = {
      {Recompute::kNone, 3}, {Recompute::kMlp, 3}, {Recompute::kAttention, 4}, {Recompute::kLayer, 5}};
  for (const auto& [recompute, times] : attention) {
    c.recompute = recompute;
    for (const auto& sent : Results(c, true).traffic) {
      EXPECT_EQ(sent.at({Operation::kTensorMlp, Pass::kBackward}).bytes, 3 * once) << c.ToString();
      EXPECT_EQ(sent.at({Operation::kTensorAttention, Pass::kBackward}).bytes, times * once) << c.ToString();
    }
  }
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
          const int64_t messages = (mesh.tensor - 1) * c.problem.config.layers;
          EXPECT_EQ(sent.at({operation, Pass::kForward}).messages, 2 * messages) << c.ToString();
          EXPECT_EQ(sent.at({operation, Pass::kBackward}).messages, 3 * messages) << c.ToString();
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

// A small stack of one rank, its weights and inputs zero but for what the test fills in.
struct OneRankStack {
  RankGroups groups;
  std::unique_ptr<TransformerLayer> layer;
  std::vector<std::unique_ptr<WeightSet>> weights;
  std::unique_ptr<LayerStack> stack;
};
absl::StatusOr<std::unique_ptr<OneRankStack>> MakeOneRankStack(TestRank& self, const LayerCase& c) {
  LayerPlan plan;
  plan.config = c.problem.config;
  plan.batch = c.problem.batch;
  plan.mask = c.problem.mask.Make(c.problem.tokens);
  plan.tokens = TokenLayout(c.mesh, c.layout, c.problem.tokens);
  plan.rank = self.rank;
  plan.backward = plan.inspect = true;
  const RankStreams streams{self.device, self.compute, self.comm};
  auto made = std::make_unique<OneRankStack>();
  SEQPAR_ASSIGN_OR_RETURN(made->groups, RankGroups::Create(self.world, plan.mesh(), plan.Heads()));
  SEQPAR_ASSIGN_OR_RETURN(made->layer, TransformerLayer::Create(plan, streams, &made->groups));
  std::vector<const WeightSet*> pointers;
  for (int l = 0; l < plan.config.layers; ++l) {
    SEQPAR_ASSIGN_OR_RETURN(WeightSet set,
                            WeightSet::Create(&made->layer->table(), self.device, plan.dtype, "weights"));
    self.device->Zero(*self.compute, set.All().data, set.All().bytes());
    made->weights.push_back(std::make_unique<WeightSet>(std::move(set)));
    pointers.push_back(made->weights.back().get());
  }
  SEQPAR_ASSIGN_OR_RETURN(made->stack,
                          LayerStack::Create(made->layer.get(), streams, &made->groups, pointers));
  for (const Matrix& m : {made->stack->input(), made->stack->output_gradient()}) {
    self.device->Zero(*self.compute, m.data, m.bytes());
  }
  SEQPAR_RETURN_IF_ERROR(self.compute->Synchronize());
  return made;
}

TEST(LayerStackTest, AnErrorOfTheCallbackEndsTheRun) {
  const absl::Status status = RunRanks(1, [&](TestRank& self) -> absl::Status {
    SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<OneRankStack> made, MakeOneRankStack(self, Case({})));
    int calls = 0;
    const absl::Status forward = made->stack->Forward([&](const LayerStep& step) {
      EXPECT_EQ(step.layer, calls++);
      return step.layer == 1 ? absl::DataLossError("looks wrong") : absl::OkStatus();
    });
    EXPECT_EQ(calls, 2);
    EXPECT_EQ(forward.code(), absl::StatusCode::kDataLoss);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

// The first cause is the rank's own: it does not wait for peers that never come.
TEST(LayerStackTest, AnErrorOfOneRankEndsTheOthersRuns) {
  std::vector<absl::Status> ends(2);
  RunRanks(2, [&](TestRank& self) -> absl::Status {
    SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<OneRankStack> made,
                            MakeOneRankStack(self, Case({1, 1, 2, 2})));
    if (self.rank == 1) self.compute->Fail(absl::DataLossError("a kernel failed"));
    ends[self.rank] = made->stack->Forward(nullptr);
    return absl::OkStatus();
  }).IgnoreError();
  EXPECT_EQ(ends[1].code(), absl::StatusCode::kDataLoss) << ends[1];
  EXPECT_EQ(ReasonOf(ends[0]), reason::kPeerLost) << ends[0];
  EXPECT_NE(std::string(ends[0].message()).find("lost rank 1: a kernel failed"), std::string::npos)
      << ends[0];
}

std::vector<double> Values(const Matrix& m) {
  std::vector<double> values;
  for (int64_t row = 0; row < m.rows; ++row) {
    const float* from = reinterpret_cast<const float*>(m.At(row, 0));
    values.insert(values.end(), from, from + m.cols);
  }
  return values;
}

// What is shown are the gradients of what the core attended, after rotary and before it is rotated back.
TEST(LayerStackTest, ShowsWhatTheAttentionCoreSawAndGave) {
  LayerCase c = Case({});
  c.problem.config.rope_theta = 100;
  c.problem.config.layers = 1;
  const LayerInputs inputs = MakeLayerInputs(c.problem, 3);
  const absl::Status status = RunRanks(1, [&](TestRank& self) -> absl::Status {
    SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<OneRankStack> made, MakeOneRankStack(self, c));
    const auto fill = [](const std::vector<float>& from, const Matrix& to) {
      std::copy(from.begin(), from.end(), static_cast<float*>(to.data));
    };
    for (const auto& [suffix, values] : inputs.weights[0]) fill(values, made->weights[0]->Get(suffix));
    fill(inputs.x, made->stack->input());
    fill(inputs.dy, made->stack->output_gradient());
    SEQPAR_RETURN_IF_ERROR(made->stack->Forward(nullptr));
    return made->stack->Backward([&](const LayerStep& step) {
      const AttentionView view = step.attention();
      const AttentionProblem problem{c.problem.batch, c.problem.tokens, 8, 2, 8, c.problem.mask};
      const int64_t half = view.kv.cols / 2;
      const std::vector<double> q = Values(view.q), k = Values(view.kv.Cols(0, half)),
                                v = Values(view.kv.Cols(half, 2 * half));
      const auto forward = AttentionForwardOracle<double>(problem, q, k, v, DType::kF32);
      const auto want =
          AttentionBackwardOracle<double>(problem, q, k, v, forward, Values(view.dout), DType::kF32);
      EXPECT_LT(ErrorOf(Values(view.out), forward.out, ScaleOf(forward.out)).norm, 1e-6);
      EXPECT_LT(ErrorOf(Values(view.lse), forward.lse, ScaleOf(forward.lse)).norm, 1e-6);
      EXPECT_LT(ErrorOf(Values(view.dq), want.dq, ScaleOf(want.dq)).norm, 1e-5);
      EXPECT_LT(ErrorOf(Values(view.dkv.Cols(0, half)), want.dk, ScaleOf(want.dk)).norm, 1e-5);
      EXPECT_LT(ErrorOf(Values(view.dkv.Cols(half, 2 * half)), want.dv, ScaleOf(want.dv)).norm, 1e-5);
      return absl::OkStatus();
    });
  });
  EXPECT_TRUE(status.ok()) << status;
}

// Everything is allocated before or in the first layer of a pass; what a run held is free when it is gone.
TEST(LayerStackTest, MemoryGrowsNeitherFromLayerToLayerNorFromRunToRun) {
  const LayerCase c = Case({1, 2, 2, 2});
  const absl::Status status = RunRanks(4, [&](TestRank& self) -> absl::Status {
    int64_t peaks[2] = {},
            left[2] = {};  // of two runs; what is left is what the device keeps for its kernels
    for (int run = 0; run < 2; ++run) {
      self.device->ResetPeak();
      {
        SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<OneRankStack> made, MakeOneRankStack(self, c));
        std::vector<int64_t> used;
        const auto look = [&](const LayerStep&) {
          used.push_back(self.device->memory().peak_bytes);
          return absl::OkStatus();
        };
        SEQPAR_RETURN_IF_ERROR(made->stack->Forward(look));
        SEQPAR_RETURN_IF_ERROR(made->stack->Backward(look));
        const int layers = c.problem.config.layers;
        EXPECT_EQ(static_cast<int>(used.size()), 2 * layers);
        for (int l = 1; l < layers; ++l) {
          EXPECT_EQ(used[l], used[0]) << "forward, layer " << l;
          EXPECT_EQ(used[layers + l], used[layers]) << "backward, layer " << layers - 1 - l;
        }
        peaks[run] = used.back();
      }
      SEQPAR_RETURN_IF_ERROR(self.compute->Synchronize());
      left[run] = self.device->memory().used_bytes;
    }
    EXPECT_EQ(peaks[1], peaks[0]);
    EXPECT_EQ(left[1], left[0]);
    EXPECT_GT(peaks[0], 0);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace seqpar
