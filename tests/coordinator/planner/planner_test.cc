#include "coordinator/planner/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/planner/ring_cost.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<PlannedJob> PlanOn(const JobSpec& job, const ClusterSnapshot& cluster,
                                  PlanOptions options = {}) {
  return PlanJob(job, cluster, Calibration(), options);
}

JobSpec With(JobSpec job, const std::function<void(JobSpec*)>& change) {
  change(&job);
  return job;
}

JobSpec WithHeads(JobSpec job, int heads, int kv_heads) {
  job.config.head_dim = job.config.head_dim * job.config.heads / heads;
  job.config.heads = heads;
  job.config.kv_heads = kv_heads;
  return job;
}

JobSpec WithWindow(JobSpec job, int64_t left) {
  job.mask = {MaskKind::kWindow, left, 0, {}};
  return job;
}

JobSpec WithStrategy(JobSpec job, StrategyKind strategy, int tensor = 0, int ulysses = 0, int ring = 0) {
  job.parallelism.strategy = strategy;
  job.parallelism.tensor = tensor;
  job.parallelism.ulysses = ulysses;
  job.parallelism.ring = ring;
  return job;
}

JobSpec WithWorkers(JobSpec job, int min, int max) {
  job.min_workers = min;
  job.max_workers = max;
  return job;
}

// --- what is chosen, and why ---

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
constexpr Recompute kNone = Recompute::kNone, kAttention = Recompute::kAttention, kLayer = Recompute::kLayer;

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
       "T3",
       kRing,
       kContiguous,
       kNone,
       {"megatron_sp T3", "T4, a tie (1.6 % slower), with more devices"}},
      // The longer the sequence the more must be computed again.
      {"Fits", LlamaJob(96 << 10), EightH100(), "U8", kRing, kContiguous, kNone, {"ulysses U8"}},
      {"FitsWithAttentionAgain",
       LlamaJob(192 << 10),
       EightH100(),
       "T2 x U4",
       kRing,
       kContiguous,
       kAttention,
       {"hybrid T2 x U4", "by running attention again in backward"}},
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
       "R8",
       kRing,
       kZigzag,
       kNone,
       {"ring R8 zigzag: predicted fastest"}},
      // What must cross a slow network crosses it as a ring, with tensor parallelism inside each node.
      {"SlowNetworkRingOutside",
       LlamaJob(1 << 20),
       SlowNetwork(),
       "T8 x R4",
       kRing,
       kZigzag,
       kLayer,
       {"hybrid T8 x R4 zigzag: predicted fastest"}},
      // A window reaches a few keys of a neighbour: fetching just those beats passing whole shares on.
      {"WindowGathers",
       WithWindow(LlamaJob(1 << 20), 4095),
       SlowNetwork(),
       "T8 x R4",
       kGather,
       kContiguous,
       kLayer,
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
}

INSTANTIATE_TEST_SUITE_P(Examples, ChoiceTest, ::testing::ValuesIn(Choices()),
                         [](const ::testing::TestParamInfo<Choice>& info) {
                           return std::string(info.param.name);
                         });

// --- what is refused, and what waits ---

struct Refusal {
  const char* name;
  JobSpec job;
  ClusterSnapshot cluster;
  absl::StatusCode code;
  std::vector<const char*> message;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

std::vector<Refusal> Refusals() {
  const JobSpec text = TextJob();
  const absl::StatusCode waits = absl::StatusCode::kUnavailable,
                         infeasible = absl::StatusCode::kFailedPrecondition;
  return {
      {"NoNodes", text, ClusterSnapshot(), waits, {"waits for 1 device, 0 attached"}},
      {"MoreWorkersThanThereAre",
       WithWorkers(text, 6, 0),
       FourSlots(),
       waits,
       {"waits for 6 devices, 4 attached"}},
      {"DegreeAboveDevices",
       WithStrategy(text, StrategyKind::kRing, 0, 0, 8),
       FourSlots(),
       waits,
       {"waits for 8 devices, 4 attached"}},
      {"MemoryOfMoreDevices",
       LlamaJob(1 << 20),
       EightH100(),
       waits,
       {"does not fit on 8 devices of 70.8 GiB; waits for 16 devices, where R16 would fit"}},
      {"MemoryWithinLimits",
       WithStrategy(LlamaJob(1 << 20), StrategyKind::kUlysses, 0, 4),
       SixteenNodes(),
       infeasible,
       {"no mesh within the job's limits fits: ulysses U4 comes nearest and needs", "may be used",
        "without the limits R8 on 8 devices would fit"}},
      {"MemoryWithinWorkers",
       WithWorkers(LlamaJob(1 << 20), 1, 8),
       EightH100(),
       infeasible,
       {"no mesh within the job's limits fits", "without the limits R16 on 16 devices would fit"}},
      {"HybridOfAPrime",
       WithWorkers(WithStrategy(text, StrategyKind::kHybrid), 3, 3),
       FourSlots(),
       infeasible,
       {"strategy hybrid uses at least two axes", "workers allow 3 to 3; nearest: workers.max 4"}},
      {"HybridOfTooFew",
       WithStrategy(text, StrategyKind::kHybrid),
       MakeCluster(1, 3, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9}),
       waits,
       {"waits for 4 devices, 3 attached"}},
      {"HybridOfOneHead",
       WithStrategy(WithHeads(text, 1, 1), StrategyKind::kHybrid),
       FourSlots(),
       infeasible,
       {"strategy hybrid has no mesh of 4 devices for these heads: U2 x R2 cuts 1 head into 2 parts",
        "nearest: strategy ring or gather"}},
      {"UlyssesBeyondHeads",
       WithWorkers(WithStrategy(text, StrategyKind::kUlysses), 9, 0),
       EightH100(),
       infeasible,
       {"strategy ulysses takes at most 8 ranks with 8 heads, workers.min is 9; nearest: workers.min 8"}},
      {"MeshWithoutMeaning",
       WithStrategy(text, StrategyKind::kHybrid, 3, 4),
       SixteenNodes(),
       absl::StatusCode::kInvalidArgument,
       {"tensor x ulysses is 12, there are 8 heads", "tensor 3 x ulysses 2 or tensor 2 x ulysses 4"}},
  };
}

class RefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusalTest, SaysWhy) {
  const Refusal& expected = GetParam();
  const auto planned = PlanOn(expected.job, expected.cluster);
  ASSERT_EQ(planned.status().code(), expected.code) << planned.status();
  for (const char* part : expected.message)
    EXPECT_THAT(std::string(planned.status().message()), HasSubstr(part));
  const char* reason = expected.code == absl::StatusCode::kUnavailable          ? reason::kTooFewDevices
                       : expected.code == absl::StatusCode::kFailedPrecondition ? reason::kInfeasible
                                                                                : reason::kInvalidJob;
  EXPECT_EQ(ReasonOf(planned.status()), reason);
}

INSTANTIATE_TEST_SUITE_P(Limits, RefusalTest, ::testing::ValuesIn(Refusals()),
                         [](const ::testing::TestParamInfo<Refusal>& info) {
                           return std::string(info.param.name);
                         });

TEST(PlanJob, WaitsForDevicesThatAreBusy) {
  ClusterSnapshot cluster = FourSlots();
  cluster.nodes[0].free = {true, false, false, true};
  const auto waits = PlanOn(WithWorkers(TextJob(), 4, 4), cluster, {.only_free = true});
  ASSERT_TRUE(absl::IsUnavailable(waits.status())) << waits.status();
  EXPECT_THAT(std::string(waits.status().message()), HasSubstr("waits for 4 devices, 2 free"));
  EXPECT_TRUE(PlanOn(WithWorkers(TextJob(), 4, 4), cluster).ok());
  const auto now = PlanOn(TextJob(), cluster, {.only_free = true});
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_EQ(now->plan.ranks[0].device, 0);
  EXPECT_EQ(now->plan.ranks[1].device, 3);
}

TEST(PlanJob, WaitsForLargerDevicesThatAreBusy) {
  ClusterSnapshot cluster = FourSlots();
  for (int d : {0, 1}) cluster.nodes[0].devices[d].memory_bytes = 100 << 20;
  cluster.nodes[0].free = {true, true, false, false};
  const JobSpec job = WithWorkers(TextJob(), 1, 2);
  const auto waits = PlanOn(job, cluster, {.only_free = true});
  ASSERT_TRUE(absl::IsUnavailable(waits.status())) << waits.status();
  EXPECT_THAT(std::string(waits.status().message()), HasSubstr("waits for devices that are busy"));
}

TEST(PlanJob, TakesTheNodesWithEnoughMemory) {
  ClusterSnapshot cluster = MakeCluster(2, 2, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9});
  for (DeviceSpec& device : cluster.nodes[0].devices) device.memory_bytes = 100 << 20;
  const auto planned = PlanOn(WithWorkers(TextJob(), 1, 2), cluster);
  ASSERT_TRUE(planned.ok()) << planned.status();
  EXPECT_EQ(planned->plan.mesh.size(), 2);
  for (const RankPlan& rank : planned->plan.ranks) EXPECT_EQ(rank.node, "node-1");
}

TEST(PlanJob, LeavesOutNodesThatTakeNoRanks) {
  ClusterSnapshot cluster = MakeCluster(2, 4, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9});
  cluster.nodes[0].ready = false;
  const auto planned = PlanOn(TextJob(), cluster);
  ASSERT_TRUE(planned.ok()) << planned.status();
  for (const RankPlan& rank : planned->plan.ranks) EXPECT_EQ(rank.node, "node-1");
}

// --- explanations ---

TEST(Explanation, CountsRejectionsAndNamesTheNearestMisses) {
  const auto planned = PlanOn(LlamaJob(1 << 20), SixteenNodes());
  ASSERT_TRUE(planned.ok()) << planned.status();
  const std::vector<Rejection>& rejected = planned->explanation.rejected;
  ASSERT_EQ(rejected.size(), 2u);
  EXPECT_EQ(rejected[0].reason, "exceeds the memory of a device");
  EXPECT_GT(rejected[0].count, 10);
  EXPECT_GT(rejected[0].nearest.prediction.peak_bytes, H200().memory_bytes / 20 * 19);
  EXPECT_LT(rejected[0].nearest.prediction.peak_bytes, H200().memory_bytes * 11 / 10);
  EXPECT_THAT(rejected[0].nearest.reason, HasSubstr("may be used"));
  EXPECT_EQ(rejected[1].reason, "tensor x ulysses exceeds the heads");
  EXPECT_EQ(rejected[1].nearest.mesh.tensor * rejected[1].nearest.mesh.ulysses, 36);
  EXPECT_THAT(rejected[1].nearest.reason, HasSubstr("cuts 32 heads into 36 parts"));
}

TEST(Explanation, SaysWhatMakesOthersSlower) {
  const auto planned = PlanOn(WithHeads(TextJob(), 5, 5), FourSlots(), {.all_candidates = true});
  ASSERT_TRUE(planned.ok()) << planned.status();
  std::set<std::string> causes;
  for (const Candidate& c : planned->explanation.all) {
    const size_t colon = c.reason.find("slower: ");
    if (colon != std::string::npos) causes.insert(c.reason.substr(colon + 8));
  }
  EXPECT_THAT(causes,
              ::testing::IsSupersetOf({"5 heads do not divide by 2", "3 ranks share the work",
                                       "the contiguous layout gives its busiest rank more of the mask"}));
}

TEST(Explanation, HasEveryCandidateWhereAsked) {
  const auto planned = PlanOn(TextJob(), FourSlots(), {.all_candidates = true});
  ASSERT_TRUE(planned.ok()) << planned.status();
  const Explanation& x = planned->explanation;
  EXPECT_EQ(static_cast<int64_t>(x.all.size()), x.considered);
  for (const Candidate& c : x.all) EXPECT_FALSE(c.reason.empty()) << c.mesh.ToString();
  for (size_t i = 2; i < x.best.size(); ++i) {
    EXPECT_LE(x.best[i - 1].prediction.step_seconds, x.best[i].prediction.step_seconds);
  }
  EXPECT_TRUE(PlanOn(TextJob(), FourSlots())->explanation.all.empty());
}

// Every kind of mesh is looked at; rings that span nodes also as rings of rings.
TEST(Explanation, ReachesEveryStrategy) {
  const auto planned = PlanOn(LlamaJob(1 << 20), SlowNetwork(), {.all_candidates = true});
  ASSERT_TRUE(planned.ok()) << planned.status();
  std::set<std::string> strategies;
  bool double_ring = false, gather_hybrid = false, three_axes = false;
  for (const Candidate& c : planned->explanation.all) {
    strategies.insert(StrategyName(c.strategy));
    double_ring = double_ring || (c.mesh.ring == 32 && c.mesh.inner == 8);
    gather_hybrid = gather_hybrid || (c.strategy == StrategyKind::kHybrid && c.core == CoreKind::kGather);
    three_axes = three_axes || (c.mesh.tensor > 1 && c.mesh.ulysses > 1 && c.mesh.ring > 1);
  }
  EXPECT_THAT(strategies, ElementsAre("gather", "hybrid", "megatron_sp", "ring", "ulysses"));
  EXPECT_TRUE(double_ring && gather_hybrid && three_axes);
}

TEST(PlanJob, IsDeterministic) {
  for (const ClusterSnapshot& cluster : {FourSlots(), SlowNetwork()}) {
    const auto a = PlanOn(TextJob(), cluster, {.all_candidates = true});
    const auto b = PlanOn(TextJob(), cluster, {.all_candidates = true});
    ASSERT_TRUE(a.ok()) << a.status();
    ASSERT_TRUE(b.ok());
    EXPECT_EQ(PlanToProto(a->plan).SerializeAsString(), PlanToProto(b->plan).SerializeAsString());
    EXPECT_EQ(ExplanationToProto(a->explanation).SerializeAsString(),
              ExplanationToProto(b->explanation).SerializeAsString());
  }
}

TEST(PlanJob, CalibrationCorrectsPredictions) {
  const JobSpec job = WithStrategy(TextJob(), StrategyKind::kUlysses, 0, 4);
  const auto plain = PlanJob(job, FourSlots(), Calibration(), {});
  const auto learned = PlanJob(job, FourSlots(), {.compute = 2, .communication = 3, .memory = 1.5}, {});
  ASSERT_TRUE(plain.ok() && learned.ok());
  const Prediction &a = plain->plan.prediction, &b = learned->plan.prediction;
  EXPECT_DOUBLE_EQ(b.compute_seconds, 2 * a.compute_seconds);
  EXPECT_DOUBLE_EQ(b.communication_seconds, 3 * a.communication_seconds);
  EXPECT_NEAR(static_cast<double>(b.peak_bytes), 1.5 * static_cast<double>(a.peak_bytes), 2);
}

// --- plans ---

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

TEST(Plan, TensorNeighboursShareANode) {
  const auto planned = PlanOn(WithStrategy(LlamaJob(1 << 20), StrategyKind::kHybrid, 8, 0, 4), SlowNetwork());
  ASSERT_TRUE(planned.ok()) << planned.status();
  std::set<std::string> nodes;
  for (const RankPlan& rank : planned->plan.ranks) {
    nodes.insert(rank.node);
    for (int peer : rank.tensor_group) EXPECT_EQ(planned->plan.ranks[peer].node, rank.node);
  }
  EXPECT_EQ(nodes.size(), 4u);
}

TEST(Plan, UsesTheTightestNodeAndTheFewest) {
  ClusterSnapshot cluster = MakeCluster(3, 8, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9});
  cluster.nodes[1].free = {true, true, true, true, false, false, false, false};
  const auto tight = PlanOn(WithWorkers(TextJob(), 4, 4), cluster, {.only_free = true});
  ASSERT_TRUE(tight.ok()) << tight.status();
  for (const RankPlan& rank : tight->plan.ranks) EXPECT_EQ(rank.node, "node-1");
  const auto wide = PlanOn(WithWorkers(TextJob(), 16, 16), cluster, {.only_free = true});
  ASSERT_TRUE(wide.ok()) << wide.status();
  for (const RankPlan& rank : wide->plan.ranks) EXPECT_NE(rank.node, "node-1");
}

// --- figures against the closed forms of docs/formulas.md ---

// Even in every way: N, heads and width divide by all degrees.
JobSpec EvenJob() {
  JobSpec job;
  job.config = {
      .hidden_size = 256, .heads = 8, .kv_heads = 4, .head_dim = 32, .intermediate_size = 512, .layers = 2};
  job.config.norm = NormKind::kNone;
  job.mask.kind = MaskKind::kFull;
  job.tokens = 4096;
  job.batch = 2;
  return job;
}

int64_t BytesSent(const JobSpec& job) {
  const auto planned = PlanOn(job, EightH100());
  return planned.ok() ? planned->plan.prediction.bytes_sent : -1;
}

constexpr int64_t kBatch = 2, kTokens = 4096, kHidden = 256, kQ = 256, kKv = 128, kLayers = 2, kElement = 4;
// q, k, v and o projections and the gated MLP.
constexpr int64_t kWeights = kHidden * (2 * kQ + 2 * kKv + 3 * 512);

TEST(BytesSent, OneRankSendsNothing) {
  EXPECT_EQ(BytesSent(WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 1)), 0);
}

TEST(BytesSent, Megatron) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kMegatronSp, 4);
  const int64_t collective = kBatch * kTokens * kHidden * kElement * 3 / 4;
  EXPECT_EQ(BytesSent(job), kLayers * 4 * collective);  // 2 for attention, 2 for the MLP
  job.pass = JobPass::kForwardBackward;
  EXPECT_EQ(BytesSent(job), kLayers * (4 + 6) * collective);
}

TEST(BytesSent, Ulysses) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kUlysses, 0, 4);
  // Four ranks of two query heads, each with one KV head of its own: no copies.
  const int64_t pass = kBatch * kTokens * (2 * kQ + 2 * kKv) * kElement * 3 / 16;
  EXPECT_EQ(BytesSent(job), kLayers * pass);
  job.pass = JobPass::kForwardBackward;
  EXPECT_EQ(BytesSent(job), kLayers * (2 * pass + 2 * kWeights * 4 * 3 / 4));
}

TEST(BytesSent, Ring) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 4);
  const int64_t pass = 2 * kBatch * kTokens * kKv * kElement * 3 / 4;
  EXPECT_EQ(BytesSent(job), kLayers * pass);
  job.pass = JobPass::kForwardBackward;  // K/V again, and float32 dK/dV, which are as large here
  EXPECT_EQ(BytesSent(job), kLayers * (3 * pass + 2 * kWeights * 4 * 3 / 4));
}

TEST(BytesSent, Gather) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kGather, 0, 0, 4);
  const int64_t pass = 2 * kBatch * kTokens * kKv * kElement * 3 / 4;
  EXPECT_EQ(BytesSent(job), kLayers * pass);
  job.pass = JobPass::kForwardBackward;  // K/V were kept
  EXPECT_EQ(BytesSent(job), kLayers * (2 * pass + 2 * kWeights * 4 * 3 / 4));
}

TEST(BytesSent, Bfloat16HalvesEverythingButGradients) {
  JobSpec job = With(WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 4), [](JobSpec* j) {
    j->dtype = DType::kBF16;
    j->pass = JobPass::kForwardBackward;
  });
  const int64_t keys = 2 * kBatch * kTokens * kKv * 3 / 4;
  EXPECT_EQ(BytesSent(job), kLayers * (keys * 2 + keys * 2 + keys * 4 + 2 * kWeights * 4 * 3 / 4));
}

TEST(BytesSent, WindowSendsWhatTheWindowReaches) {
  JobSpec job = WithWindow(WithStrategy(EvenJob(), StrategyKind::kGather, 0, 0, 4), 100);
  job.parallelism.layout = LayoutKind::kContiguous;
  EXPECT_EQ(BytesSent(job), kLayers * 2 * kBatch * 100 * kKv * kElement);
}

TEST(StepSeconds, IsFlopsOverRateOnOneRank) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 1);
  job.tokens = 65536;
  const auto planned = PlanOn(job, FourSlots());
  ASSERT_TRUE(planned.ok()) << planned.status();
  const ModelFlops flops = CountModelFlops(job);
  const double seconds = flops.attention_forward / 65e9 + flops.linear_forward / 80e9;
  EXPECT_NEAR(planned->plan.prediction.step_seconds, seconds, 0.05 * seconds);
  EXPECT_EQ(planned->plan.prediction.model_flops, flops.total);
  EXPECT_EQ(planned->plan.prediction.communication_seconds, 0);
}

TEST(StepSeconds, ASlowLinkIsExposed) {
  const JobSpec job = WithStrategy(EvenJob(), StrategyKind::kMegatronSp, 4);
  const auto fast = PlanOn(job, MakeCluster(1, 4, CpuSlot(), {0, 5e9}, {0, 1e9}));
  const auto slow = PlanOn(job, MakeCluster(4, 1, CpuSlot(), {0, 5e9}, {0, 1e9}));
  ASSERT_TRUE(fast.ok() && slow.ok());
  EXPECT_NEAR(slow->plan.prediction.communication_seconds, 5 * fast->plan.prediction.communication_seconds,
              1e-9);
}

// --- the ring's volumes ---

TEST(RingCost, PairsAreThoseOfTheMask) {
  const std::vector<int64_t> documents = {700, 1, 900, 400};
  for (LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    for (const Mask& mask :
         {Mask(MaskKind::kFull, 2001), Mask(MaskKind::kCausal, 2001), Mask(MaskKind::kWindow, 2001, 37, 5),
          Mask(MaskKind::kCausal, 2001, -1, -1, documents),
          Mask(MaskKind::kWindow, 2001, 500, 0, documents)}) {
      const RingCost cost = MakeRingCost(mask, layout, CoreKind::kRing, 7, std::vector<int>(7, 0));
      const std::vector<TokenShare> shares = RingShares(layout, 2001, 7);
      const TokenShare all({{0, 2001, 1}});
      for (int r = 0; r < 7; ++r)
        EXPECT_EQ(cost.pairs[r], AttendedPairs(mask, shares[r], all)) << mask.ToString();
    }
  }
}

TEST(RingCost, CausalZigzagPassesThreeQuartersOfTheRing) {
  const auto sent = [](MaskKind mask, LayoutKind layout) {
    int64_t keys = 0;
    for (const RingLoad& load :
         MakeRingCost(Mask(mask, 6400), layout, CoreKind::kRing, 8, std::vector<int>(8, 0)).loads) {
      keys += load.forward.keys();
    }
    return keys;
  };
  EXPECT_EQ(sent(MaskKind::kFull, LayoutKind::kZigzag), 7 * 6400);
  EXPECT_EQ(sent(MaskKind::kCausal, LayoutKind::kZigzag), 7 * 6400 * 3 / 4);
  EXPECT_EQ(sent(MaskKind::kCausal, LayoutKind::kContiguous), 7 * 6400 / 2);
}

// Large rings are counted by what sampled ranks receive: near the exact count that small rings get.
TEST(RingCost, SampledRingsAreNearExactOnes) {
  const Mask mask(MaskKind::kCausal, 1 << 16);
  for (LayoutKind layout : {LayoutKind::kZigzag, LayoutKind::kStriped}) {
    for (CoreKind core : {CoreKind::kRing, CoreKind::kGather}) {
      const RingCost exact = MakeRingCost(mask, layout, core, 32, std::vector<int>(32, 0));
      const RingCost sampled = MakeRingCost(mask, layout, core, 33, std::vector<int>(33, 0));
      const auto most = [](const RingCost& cost) {
        int64_t keys = 0;
        for (const RingLoad& load : cost.loads) keys = std::max(keys, load.forward.keys());
        return static_cast<double>(keys);
      };
      EXPECT_NEAR(most(sampled) / most(exact), 1, 0.35) << LayoutName(layout) << " " << CoreName(core);
      EXPECT_EQ(exact.loads.size(), 32u);
      EXPECT_NEAR(static_cast<double>(sampled.loads[0].buffer_keys),
                  static_cast<double>(exact.loads[0].buffer_keys),
                  0.1 * static_cast<double>(exact.loads[0].buffer_keys));
    }
  }
}

TEST(RingCost, KeysThatCrossNodes) {
  const Mask mask(MaskKind::kFull, 8000);
  const std::vector<int> nodes = {0, 0, 0, 0, 1, 1, 1, 1};
  const RingCost plain = MakeRingCost(mask, LayoutKind::kContiguous, CoreKind::kRing, 8, nodes);
  const RingCost nested = MakeRingCost(mask, LayoutKind::kContiguous, CoreKind::kRing, 4, nodes);
  EXPECT_EQ(plain.LoadOf(3).forward.far_keys, 7000);  // the last of a node passes everything on
  EXPECT_EQ(plain.LoadOf(1).forward.far_keys, 0);
  for (int r = 0; r < 8; ++r) {
    EXPECT_EQ(nested.LoadOf(r).forward.far_keys, 1000);  // R / inner - 1 shares
    EXPECT_EQ(nested.LoadOf(r).forward.keys(), 7000);
  }
}

}  // namespace
}  // namespace seqpar
