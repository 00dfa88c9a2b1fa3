#include "coordinator/planner/cost.h"

#include <gtest/gtest.h>

#include "coordinator/planner/planner.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

// Figures against the closed forms of docs/formulas.md.

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

TEST(StepSeconds, AreThoseOfThePasses) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kMegatronSp, 4);
  job.tokens = 65536;
  job.pass = JobPass::kForwardBackward;
  const ClusterSnapshot cluster = MakeCluster(4, 1, CpuSlot(), {0, 5e9}, {0, 1e9});
  const auto both = PlanOn(job, cluster);
  job.pass = JobPass::kForward;
  const auto forward = PlanOn(job, cluster);
  ASSERT_TRUE(both.ok() && forward.ok());
  const Prediction &p = both->plan.prediction, &f = forward->plan.prediction;
  EXPECT_DOUBLE_EQ(p.forward.compute_seconds + p.backward.compute_seconds, p.compute_seconds);
  EXPECT_DOUBLE_EQ(p.forward.communication_seconds + p.backward.communication_seconds,
                   p.communication_seconds);
  EXPECT_DOUBLE_EQ(f.compute_seconds, p.forward.compute_seconds);
  EXPECT_DOUBLE_EQ(f.communication_seconds, p.forward.communication_seconds);
  EXPECT_EQ(f.backward.compute_seconds, 0);
  // At least twice the flops.
  EXPECT_GT(p.backward.compute_seconds, 1.9 * p.forward.compute_seconds);
}

TEST(StepSeconds, ASlowLinkIsExposed) {
  const JobSpec job = WithStrategy(EvenJob(), StrategyKind::kMegatronSp, 4);
  const auto fast = PlanOn(job, MakeCluster(1, 4, CpuSlot(), {0, 5e9}, {0, 1e9}));
  const auto slow = PlanOn(job, MakeCluster(4, 1, CpuSlot(), {0, 5e9}, {0, 1e9}));
  ASSERT_TRUE(fast.ok() && slow.ok());
  EXPECT_NEAR(slow->plan.prediction.communication_seconds, 5 * fast->plan.prediction.communication_seconds,
              1e-9);
}

}  // namespace
}  // namespace seqpar
