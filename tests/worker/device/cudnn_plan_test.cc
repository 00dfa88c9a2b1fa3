// What cuDNN is asked for a tile, and what is kept of its answers, which needs no GPU.
#include "worker/device/cuda/cudnn_plan.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/device/cuda_scratch.h"
#include "worker/device/cuda/made_shapes.h"
#include "worker/device/cuda/run_cache.h"

namespace seqpar::cuda {

// Of which only whether there is one is looked at.
class CudnnGraph {};

namespace {

constexpr CudnnPass kPasses[] = {CudnnPass::kForward, CudnnPass::kBackward, CudnnPass::kBackwardFixed};

std::vector<char>& Memory() {
  static std::vector<char> memory(64);
  return memory;
}

// As scheduled_tiles.h makes one: K and V side by side. `data`: what only a call has.
AttentionTile MakeTile(const Mask& mask, int64_t queries, int head_dim, const HeadRange& heads, int group,
                       int64_t batch = 1, void* data = nullptr) {
  AttentionTile tile;
  tile.batch = batch;
  tile.heads = heads;
  tile.group = group;
  tile.head_dim = head_dim;
  tile.scale = 0.125f;
  tile.queries = tile.keys = queries;
  const TokenShare all({{0, queries, 1}});
  tile.ranges = std::make_shared<KeyRanges>(ComputeKeyRanges(mask, all, all));
  const int64_t kv_cols = int64_t{heads.kv_heads()} * head_dim;
  tile.q = Matrix(data, DType::kBF16, queries * batch, int64_t{heads.q_heads()} * head_dim);
  tile.k = tile.v = Matrix(data, DType::kBF16, queries * batch, kv_cols, 2 * kv_cols);
  return tile;
}
AttentionTile Causal(int64_t queries, int head_dim, const HeadRange& heads, int group, int64_t batch = 1,
                     void* data = nullptr) {
  return MakeTile(Mask(MaskKind::kCausal, queries), queries, head_dim, heads, group, batch, data);
}
AttentionTile Documents(const std::vector<int64_t>& lengths) {
  int64_t queries = 0;
  for (const int64_t length : lengths) queries += length;
  return MakeTile(Mask(MaskKind::kCausal, queries, -1, -1, lengths), queries, 80, MakeHeadRange(0, 4, 1), 1);
}

// Answers every shape, and remembers what it was asked.
struct Answering {
  int64_t workspace_bytes = 0;
  std::set<CudnnShape> refused;
  std::vector<CudnnShape> asked;

  CudnnFind find() {
    return [this](const CudnnShape& shape) -> CudnnKernel {
      asked.push_back(shape);
      if (refused.count(shape) > 0) return {};
      return {std::make_shared<CudnnGraph>(), workspace_bytes};
    };
  }
  std::set<CudnnShape> shapes() const { return {asked.begin(), asked.end()}; }
};

std::vector<QueryRun> RunsOf(const AttentionTile& tile) {
  auto runs = RunCache::Cut(*tile.ranges);
  EXPECT_TRUE(runs.has_value());
  return runs.value_or(std::vector<QueryRun>());
}

std::optional<CudnnPlan> PlanOf(CudnnPass pass, const AttentionTile& tile, Answering* answering,
                                bool first = true) {
  const Matrix* dout = pass == CudnnPass::kForward ? nullptr : &tile.q;
  return PlanCudnn(pass, tile, RunsOf(tile), first, dout, answering->find());
}

TEST(CudnnPlanTest, WhatIsAskedDependsNeitherOnDataNorOnWhatIsThere) {
  for (const CudnnPass pass : kPasses) {
    for (const int64_t batch : {1, 2}) {
      const HeadRange heads = MakeHeadRange(0, 16, 4);
      Answering prepared, called, merged;
      const auto ahead = PlanOf(pass, Causal(32771, 80, heads, 4, batch), &prepared);
      ASSERT_TRUE(ahead.has_value());
      EXPECT_TRUE(ahead->left.empty());
      const AttentionTile tile = Causal(32771, 80, heads, 4, batch, Memory().data());
      const auto plan = PlanOf(pass, tile, &called);
      ASSERT_TRUE(plan.has_value());
      EXPECT_EQ(plan->launches.size(), ahead->launches.size());
      ASSERT_TRUE(PlanOf(pass, tile, &merged, false).has_value());
      EXPECT_EQ(prepared.asked, called.asked);
      EXPECT_EQ(prepared.asked, merged.asked);
    }
  }
}

TEST(CudnnPlanTest, ALongJobComesToAHandfulOfShapes) {
  for (const int64_t tokens : {32771, 131072, 1'000'003}) {
    for (const CudnnPass pass : kPasses) {
      Answering answering;
      ASSERT_TRUE(PlanOf(pass, Causal(tokens, 80, MakeHeadRange(0, 16, 4), 4), &answering).has_value());
      EXPECT_LE(answering.shapes().size(), 8u) << tokens;
    }
  }
}

TEST(CudnnPlanTest, EveryHeadAndPairIsComputedOnceWithinTheBudget) {
  const AttentionTile tile = Causal(3000, 80, MakeHeadRange(2, 7, 3), 3, 2);
  for (const CudnnPass pass : kPasses) {
    Answering answering;
    const auto plan = PlanOf(pass, tile, &answering);
    ASSERT_TRUE(plan.has_value());
    const int64_t budget =
        CudaAttentionBudget(pass != CudnnPass::kForward, tile.queries, 2 * tile.heads.q_heads(), 80);
    double pairs = 0;
    for (const CudnnLaunch& launch : plan->launches) {
      EXPECT_LE(launch.own_bytes + launch.workspace_bytes, budget);
      const auto n = static_cast<double>(launch.piece.count);
      const double seen = launch.piece.mask == CudnnMask::kCausal
                              ? n * (n + 1) / 2
                              : n * static_cast<double>(launch.piece.keys);
      pairs += seen * static_cast<double>(launch.grid.outer * launch.grid.inner);
    }
    EXPECT_EQ(pairs, 2.0 * tile.heads.q_heads() * 3000 * 3001 / 2);
  }
}

TEST(CudnnPlanTest, StridesThatMeanNothingAreNoShapeOfTheirOwn) {
  // One query head of a group, by itself: of whatever place.
  Answering first, second;
  ASSERT_TRUE(PlanOf(CudnnPass::kForward, Causal(500, 80, MakeHeadRange(0, 1, 4), 4), &first).has_value());
  ASSERT_TRUE(PlanOf(CudnnPass::kForward, Causal(500, 80, MakeHeadRange(0, 1, 1), 1), &second).has_value());
  EXPECT_EQ(first.asked, second.asked);
}

TEST(CudnnPlanTest, WhatOneShapeCannotHaveIsLeftWithoutTheOthers) {
  const AttentionTile tile = Documents({200, 300, 40, 300, 500});
  Answering all;
  const auto plan = PlanOf(CudnnPass::kForward, tile, &all);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->launches.size(), 4u);
  EXPECT_EQ(plan->left, (std::vector<QuerySpan>{{500, 40}}));  // too few tokens
  Answering without;
  for (const CudnnShape& shape : all.asked) {
    if (shape.queries == 300) without.refused.insert(shape);
  }
  const auto rest = PlanOf(CudnnPass::kForward, tile, &without);
  ASSERT_TRUE(rest.has_value());
  ASSERT_EQ(rest->launches.size(), 2u);
  EXPECT_EQ(rest->launches[0].piece.count, 200);  // as they lie
  EXPECT_EQ(rest->launches[1].piece.count, 500);
  EXPECT_EQ(rest->left, (std::vector<QuerySpan>{{200, 640}}));
  without.refused = all.shapes();
  EXPECT_FALSE(PlanOf(CudnnPass::kForward, tile, &without).has_value());
}

TEST(CudnnPlanTest, KernelsThatWantMoreThanTheBudgetAreNotTaken) {
  Answering greedy;
  greedy.workspace_bytes = kCudaAttentionLeastBytes;
  EXPECT_FALSE(PlanOf(CudnnPass::kForward, Causal(500, 80, MakeHeadRange(0, 4, 1), 1), &greedy).has_value());
  EXPECT_FALSE(greedy.asked.empty());
}

TEST(CudnnPlanTest, OfTooManyShapesTheLongestRunsAreServedAndTheirLike) {
  std::vector<int64_t> lengths;
  for (int i = 0; i < 40; ++i) lengths.push_back(130 + i);
  lengths.push_back(169);  // the longest once more
  const AttentionTile tile = Documents(lengths);
  Answering answering;
  const auto plan = PlanOf(CudnnPass::kForward, tile, &answering);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(answering.shapes().size(), kCudnnShapesMax);
  ASSERT_EQ(plan->launches.size(), kCudnnShapesMax + 1);
  int64_t last = -1;
  for (const CudnnLaunch& launch : plan->launches) {
    EXPECT_GE(launch.piece.count, 138);
    EXPECT_GT(launch.piece.first, last);
    last = launch.piece.first;
  }
  int64_t left = 0;
  for (int i = 0; i < 8; ++i) left += lengths[i];
  EXPECT_EQ(plan->left, (std::vector<QuerySpan>{{0, left}}));
}

// Makes a text of a number, which is missing for negative ones; a second passes for each.
struct Making {
  std::vector<int> made;
  double now = 0;
  MadeShapes<int, std::string> Shapes(size_t kept, int64_t ahead, double ahead_seconds = 100) {
    return {{kept, ahead, ahead_seconds},
            [this](int n) {
              made.push_back(n);
              now += 1;
              return n < 0 ? std::string() : std::to_string(n);
            },
            [this] { return now; }};
  }
};

TEST(MadeShapesTest, MadeOnceWhateverCameOfIt) {
  Making making;
  auto shapes = making.Shapes(10, 10);
  EXPECT_EQ(*shapes.GetAhead(1), "1");
  EXPECT_EQ(shapes.Get(1), "1");
  EXPECT_EQ(shapes.Get(-2), "");
  EXPECT_EQ(shapes.Get(-2), "");
  EXPECT_EQ(*shapes.GetAhead(-2), "");
  EXPECT_EQ(making.made, (std::vector<int>{1, -2}));
}

TEST(MadeShapesTest, CountsAndTimesWhatWasMadeAheadAndWhatACallWaitedFor) {
  Making making;
  auto shapes = making.Shapes(10, 10);
  for (const int n : {1, 2, 1, 3}) shapes.GetAhead(n);
  for (const int n : {1, 2, 3, 4, 4}) shapes.Get(n);
  EXPECT_EQ(shapes.made_ahead(), 3);
  EXPECT_EQ(shapes.made_late(), 1);
  EXPECT_EQ(shapes.ahead_seconds(), 3);
  EXPECT_EQ(shapes.late_seconds(), 1);
}

TEST(MadeShapesTest, NoMoreAheadThanIsAllowedAndCallsAreNotHeldToIt) {
  Making making;
  auto shapes = making.Shapes(10, 2);
  EXPECT_NE(shapes.GetAhead(1), nullptr);
  EXPECT_NE(shapes.GetAhead(2), nullptr);
  EXPECT_EQ(shapes.GetAhead(3), nullptr);
  EXPECT_NE(shapes.GetAhead(1), nullptr);  // is there
  EXPECT_EQ(shapes.Get(3), "3");           // what was not made ahead was not taken for missing
  EXPECT_NE(shapes.GetAhead(3), nullptr);
  EXPECT_EQ(making.made, (std::vector<int>{1, 2, 3}));
}

TEST(MadeShapesTest, NoneIsBegunAheadPastItsTime) {
  Making making;
  auto shapes = making.Shapes(10, 10, 1.5);  // a second each
  EXPECT_NE(shapes.GetAhead(1), nullptr);
  EXPECT_NE(shapes.GetAhead(2), nullptr);
  EXPECT_EQ(shapes.GetAhead(3), nullptr);
  EXPECT_NE(shapes.GetAhead(2), nullptr);
}

TEST(MadeShapesTest, WhatWasNotAskedForTheLongestGoes) {
  Making making;
  auto shapes = making.Shapes(2, 0);
  for (const int n : {1, 2, 1, 3, 1, 2}) shapes.Get(n);
  EXPECT_EQ(making.made, (std::vector<int>{1, 2, 3, 2}));
}

}  // namespace
}  // namespace seqpar::cuda
