// Which plan each of these jobs gets on these clusters, and why: a table.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/job/proto.h"
#include "coordinator/planner/planner.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

struct Choice {
  const char* name;
  JobSpec job;
  ClusterSnapshot cluster;
  const char* mesh;
  CoreKind core;
  LayoutKind layout;
  Recompute recompute;
  std::vector<const char*> reason;  // each is part of it
};

void PrintTo(const Choice& choice, std::ostream* out) { *out << choice.name; }

constexpr CoreKind kRing = CoreKind::kRing, kGather = CoreKind::kGather;
constexpr LayoutKind kContiguous = LayoutKind::kContiguous, kZigzag = LayoutKind::kZigzag;
constexpr Recompute kNone = Recompute::kNone, kMlp = Recompute::kMlp, kAttention = Recompute::kAttention,
                    kLayer = Recompute::kLayer;

std::vector<Choice> Choices() {
  const JobSpec text = TextJob();
  return {
      // Heads divide and the slots share memory: every balanced mesh is as fast, and Ulysses is the simplest.
      {"TextOnFourSlots",
       text,
       FourSlots(),
       "U4",
       kRing,
       kContiguous,
       kNone,
       {"ulysses U4: ties with the fastest, ring R4", "and is simpler", "waiting for communication",
        "a device"}},
      // Heads that do not divide leave ranks idle: a ring does not care.
      {"FiveHeadsOnFourSlots",
       WithHeads(text, 5, 5),
       FourSlots(),
       "R4",
       kRing,
       kZigzag,
       kNone,
       {"ring R4 zigzag"}},
      {"MoreRanksThanHeads",
       WithHeads(text, 2, 2),
       FourSlots(),
       "R4",
       kRing,
       kZigzag,
       kNone,
       {"ring R4 zigzag"}},
      // Without a causal mask there is nothing to balance.
      {"FullMaskOneHead",
       With(WithHeads(text, 1, 1), [](JobSpec* j) { j->mask.kind = MaskKind::kFull; }),
       FourSlots(),
       "R4",
       kRing,
       kContiguous,
       kNone,
       {"ring R4 contiguous", "and is simpler"}},
      {"WindowOneHead",
       WithWindow(WithHeads(text, 1, 1), 255),
       FourSlots(),
       "R4",
       kRing,
       kContiguous,
       kNone,
       {"ring R4 contiguous"}},
      // Short sequences of a large model: reading its weights is what costs, and more ranks only talk more.
      {"ShortSequence",
       LlamaJob(512),
       EightH100(),
       "T6",
       kRing,
       kContiguous,
       kNone,
       {"megatron_sp T6: ties with the fastest, megatron_sp T8", "with fewer devices"}},
      // The longer the sequence the more must be computed again.
      {"Fits", LlamaJob(96 << 10), EightH100(), "U8", kRing, kContiguous, kNone, {"ulysses U8"}},
      {"FitsWithMlpsAgain",
       WithStrategy(LlamaJob(192 << 10), StrategyKind::kHybrid, 2, 4, 1),
       EightH100(),
       "T2 x U4",
       kRing,
       kContiguous,
       kMlp,
       {"hybrid T2 x U4", "by running the MLP again in backward"}},
      {"FitsWithAttentionAgain",
       With(LlamaJob(600 << 10),
            [](JobSpec* j) {
              j->config.mlp = MlpKind::kNone;
              j->config.intermediate_size = 0;
            }),
       EightH100(),
       "U8",
       kRing,
       kContiguous,
       kAttention,
       {"ulysses U8", "by running attention again in backward"}},
      {"FitsWithLayersAgain",
       LlamaJob(512 << 10),
       EightH100(),
       "U8",
       kRing,
       kContiguous,
       kLayer,
       {"ulysses U8", "by running each layer again in backward"}},
      // More ranks than heads on many nodes: the ring is what reaches across.
      {"ManyNodes",
       LlamaJob(1 << 20),
       SixteenNodes(),
       "T2 x R64",
       kRing,
       kZigzag,
       kNone,
       {"hybrid T2 x R64 zigzag"}},
      {"MillionsOfTokens",
       LlamaJob(4 << 20),
       SixteenNodes(),
       "R128",
       kRing,
       kZigzag,
       kNone,
       {"ring R128 zigzag"}},
      // Half a node is worth more than two nodes with a slow network between them.
      {"SlowNetworkStaysOnANode",
       LlamaJob(128 << 10),
       SlowNetwork(),
       "U8",
       kRing,
       kContiguous,
       kNone,
       {"ulysses U8: ties with the fastest, ring R8 zigzag"}},
      // What must cross a slow network crosses it as a ring, with tensor parallelism inside each node.
      {"SlowNetworkRingOutside",
       LlamaJob(1 << 20),
       SlowNetwork(),
       "T8 x R4",
       kRing,
       kZigzag,
       kMlp,
       {"hybrid T8 x R4 zigzag: predicted fastest"}},
      // A window reaches a few keys of a neighbour: fetching just those beats passing whole shares on.
      {"WindowGathers",
       WithWindow(LlamaJob(1 << 20), 4095),
       SlowNetwork(),
       "T8 x R4",
       kGather,
       kContiguous,
       kMlp,
       {"hybrid T8 x R4 contiguous, gather: predicted fastest", "24 ranks share the work"}},
      // Asked for.
      {"MegatronSp",
       WithStrategy(text, StrategyKind::kMegatronSp),
       FourSlots(),
       "T4",
       kRing,
       kContiguous,
       kNone,
       {"megatron_sp T4: predicted fastest; next mesh is megatron_sp T3", "3 ranks share the work"}},
      {"Ulysses",
       WithStrategy(text, StrategyKind::kUlysses),
       FourSlots(),
       "U4",
       kRing,
       kContiguous,
       kNone,
       {"ulysses U4"}},
      {"Ring",
       WithStrategy(text, StrategyKind::kRing),
       FourSlots(),
       "R4",
       kRing,
       kZigzag,
       kNone,
       {"ring R4 zigzag"}},
      {"Gather",
       WithStrategy(text, StrategyKind::kGather),
       FourSlots(),
       "R4",
       kGather,
       kZigzag,
       kNone,
       {"gather R4 zigzag"}},
      {"Hybrid",
       WithStrategy(text, StrategyKind::kHybrid),
       FourSlots(),
       "T2 x U2",
       kRing,
       kContiguous,
       kNone,
       {"hybrid T2 x U2"}},
      {"HybridTwoDegrees",
       WithStrategy(text, StrategyKind::kHybrid, 2, 0, 2),
       EightH100(),
       "T2 x R2",
       kRing,
       kZigzag,
       kNone,
       {"hybrid T2 x R2"}},
      {"HybridGather",
       With(WithStrategy(text, StrategyKind::kHybrid, 0, 2, 2),
            [](JobSpec* j) { j->parallelism.core = kGather; }),
       FourSlots(),
       "U2 x R2",
       kGather,
       kZigzag,
       kNone,
       {"gather"}},
      {"HybridOfOneAxisWhereAllAreGiven",
       WithStrategy(text, StrategyKind::kHybrid, 1, 1, 4),
       FourSlots(),
       "R4",
       kRing,
       kZigzag,
       kNone,
       {"ring R4"}},
      {"DegreeFixesRanks",
       WithStrategy(text, StrategyKind::kRing, 0, 0, 3),
       FourSlots(),
       "R3",
       kRing,
       kZigzag,
       kNone,
       {"ring R3"}},
      {"LayoutIsHonoured",
       With(WithStrategy(text, StrategyKind::kRing),
            [](JobSpec* j) { j->parallelism.layout = LayoutKind::kStriped; }),
       FourSlots(),
       "R4",
       kRing,
       LayoutKind::kStriped,
       kNone,
       {"ring R4 striped"}},
      {"InnerIsHonoured",
       With(WithStrategy(text, StrategyKind::kRing, 0, 0, 4), [](JobSpec* j) { j->parallelism.inner = 2; }),
       FourSlots(),
       "R4 (inner 2)",
       kRing,
       kZigzag,
       kNone,
       {"ring R4 (inner 2)"}},
      {"WorkersMax", WithWorkers(text, 1, 2), FourSlots(), "U2", kRing, kContiguous, kNone, {"ulysses U2"}},
      {"WorkersMaxOne",
       WithWorkers(text, 1, 1),
       FourSlots(),
       "1",
       kRing,
       kContiguous,
       kNone,
       {"one rank: the only mesh that the job allows and that fits"}},
      {"WorkersMinForcesMore",
       WithWorkers(LlamaJob(512), 8, 0),
       EightH100(),
       "T8",
       kRing,
       kContiguous,
       kNone,
       {"megatron_sp T8"}},
  };
}

class ChoiceTest : public ::testing::TestWithParam<Choice> {};

TEST_P(ChoiceTest, IsAsExpected) {
  const Choice& expected = GetParam();
  const auto planned = PlanOn(expected.job, expected.cluster);
  ASSERT_TRUE(planned.ok()) << planned.status();
  const Plan& plan = planned->plan;
  EXPECT_EQ(plan.mesh.ToString(), expected.mesh) << plan.reason;
  EXPECT_EQ(plan.core, expected.core) << plan.reason;
  EXPECT_EQ(plan.layout, expected.layout) << plan.reason;
  EXPECT_EQ(plan.recompute, expected.recompute) << plan.reason;
  for (const char* part : expected.reason) EXPECT_THAT(plan.reason, HasSubstr(part));
  const Explanation& x = planned->explanation;
  ASSERT_FALSE(x.best.empty());
  EXPECT_EQ(x.best.front().mesh, plan.mesh);
  EXPECT_EQ(x.best.front().reason, plan.reason);
  EXPECT_LE(x.best.size(), 11u);
  int64_t rejected = 0;
  for (const Rejection& rejection : x.rejected) rejected += rejection.count;
  EXPECT_EQ(x.feasible + rejected, x.considered);
  // Whether any does is known sooner.
  PlanOptions whether;
  whether.first_that_fits = true;
  const auto first = PlanOn(expected.job, expected.cluster, whether);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->explanation.feasible, 1);
  EXPECT_LE(first->explanation.considered, x.considered);
}

INSTANTIATE_TEST_SUITE_P(Examples, ChoiceTest, ::testing::ValuesIn(Choices()),
                         [](const ::testing::TestParamInfo<Choice>& info) {
                           return std::string(info.param.name);
                         });

TEST(Plan, IsCompleteAndConsistent) {
  for (const Choice& choice : Choices()) {
    SCOPED_TRACE(choice.name);
    const auto planned = PlanOn(choice.job, choice.cluster);
    ASSERT_TRUE(planned.ok()) << planned.status();
    const Plan& plan = planned->plan;
    const Mesh& m = plan.mesh;
    const HeadLayout heads(m, choice.job.config.heads, choice.job.config.kv_heads);
    ASSERT_EQ(static_cast<int>(plan.ranks.size()), m.size());
    int64_t tokens = 0;
    double pairs = 0;
    std::set<std::pair<std::string, int>> devices;
    for (int rank = 0; rank < m.size(); ++rank) {
      const RankPlan& r = plan.ranks[rank];
      const MeshCoord at = m.CoordOf(rank);
      EXPECT_EQ(r.rank, rank);
      EXPECT_EQ(r.tensor_group, m.TensorGroup(rank));
      EXPECT_EQ(r.ulysses_group, m.UlyssesGroup(rank));
      EXPECT_EQ(r.ring_group, m.RingGroup(rank));
      EXPECT_EQ(plan.ranks[r.ring_next].ring_previous, rank);
      EXPECT_EQ(m.CoordOf(r.ring_next).ring, (at.ring + 1) % m.ring);
      EXPECT_EQ(r.heads, heads.Of(at.tensor, at.ulysses));
      EXPECT_EQ(r.tensor_heads, heads.OfTensor(at.tensor));
      EXPECT_GT(r.predicted_peak_bytes, 0);
      EXPECT_LE(r.predicted_peak_bytes, plan.prediction.peak_bytes);
      EXPECT_TRUE(devices.insert({r.node, r.device}).second);
      tokens += r.tokens.size();
      if (at.tensor == 0 && at.ulysses == 0) pairs += r.attended_pairs;
    }
    EXPECT_EQ(tokens, choice.job.tokens);
    EXPECT_NEAR(pairs, choice.job.mask.Make(choice.job.tokens).Pairs(), 1);
    EXPECT_TRUE(PlanFromProto(PlanToProto(plan)).ok());
  }
}

}  // namespace
}  // namespace seqpar
