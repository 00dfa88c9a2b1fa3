#include "coordinator/planner/cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

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

TEST(PeakBytes, MoreThanSixtyFourBitsCountDoNotFit) {
  // 5.6e14 values a layer, of ten thousand layers.
  const JobSpec job = With(WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 1), [](JobSpec* j) {
    j->config.hidden_size = 1 << 18;
    j->config.layers = 10'000;
    j->batch = 1;
    j->tokens = (int64_t{1} << 31) - 1;
    j->pass = JobPass::kForwardBackward;
    j->recompute = Recompute::kNone;
  });
  EXPECT_FALSE(PlanOn(job, EightH100()).ok());
}

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

TEST(StepSeconds, ALongRingHidesEveryTransferOfBothPasses) {
  const auto waits = [](CoreKind core, int64_t tokens, double bandwidth) {
    JobSpec job = WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 2);
    if (core == CoreKind::kGather) job = WithStrategy(EvenJob(), StrategyKind::kGather, 0, 0, 2);
    job.tokens = tokens;
    job.pass = JobPass::kForwardBackward;
    const auto planned = PlanOn(job, MakeCluster(2, 1, CpuSlot(), {0, 5e9}, {0, bandwidth}));
    // Weights' gradients wait for their link whatever attention does: forward and the sums are left.
    const double weights = 2 * static_cast<double>(kLayers * kWeights) * 4 / 2 / bandwidth;
    return planned.ok() ? planned->plan.prediction.communication_seconds - weights : -1;
  };
  for (const CoreKind core : {CoreKind::kRing, CoreKind::kGather}) {
    const double seconds = waits(core, 65536, 1e9);
    EXPECT_GT(seconds, 0);
    EXPECT_NEAR(waits(core, 65536, 2e9), seconds, 1e-9) << CoreName(core);
    EXPECT_GT(waits(core, 65536, 1e5), 2 * seconds) << CoreName(core);
  }
}

TEST(StepSeconds, ASlowLinkIsExposed) {
  const JobSpec job = WithStrategy(EvenJob(), StrategyKind::kMegatronSp, 4);
  const auto fast = PlanOn(job, MakeCluster(1, 4, CpuSlot(), {0, 5e9}, {0, 1e9}));
  const auto slow = PlanOn(job, MakeCluster(4, 1, CpuSlot(), {0, 5e9}, {0, 1e9}));
  ASSERT_TRUE(fast.ok() && slow.ok());
  // Beside the transfers, what arrives in half of them is summed: as long on both.
  const double transfers = static_cast<double>(fast->plan.prediction.bytes_sent);
  EXPECT_NEAR(slow->plan.prediction.communication_seconds - fast->plan.prediction.communication_seconds,
              transfers / 1e9 - transfers / 5e9, 1e-9);
  EXPECT_GT(fast->plan.prediction.communication_seconds, transfers / 5e9);
}

// --- slots that share cores ---

ClusterSnapshot SharedCores(int slots, int cores) {
  // Rates as measured while all slots are busy.
  DeviceSpec slot = CpuSlot();
  slot.rates = Scaled(slot.rates, std::min(1.0, static_cast<double>(cores) / slots));
  ClusterSnapshot cluster = MakeCluster(1, slots, slot, {0, 1e12}, {0, 1e12});
  cluster.nodes[0].cores = cores;
  return cluster;
}

double StepSeconds(const JobSpec& job, const ClusterSnapshot& cluster) {
  const auto planned = PlanOn(job, cluster);
  return planned.ok() ? planned->plan.prediction.step_seconds : -1;
}

TEST(StepSeconds, FourSlotsOnTwoCoresAreAsFastAsTwo) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kUlysses, 0, 4);
  job.tokens = 65536;
  const double four = StepSeconds(job, SharedCores(4, 2));
  job = WithStrategy(job, StrategyKind::kUlysses, 0, 2);
  EXPECT_NEAR(StepSeconds(job, SharedCores(4, 2)) / four, 1, 0.02);
  EXPECT_NEAR(StepSeconds(job, SharedCores(2, 2)) / four, 1, 0.02);
  job = WithStrategy(job, StrategyKind::kUlysses, 0, 4);
  EXPECT_NEAR(StepSeconds(job, SharedCores(4, 4)) / four, 0.5, 0.02);
}

// The rank with most of the mask works alone at the end; until then the cores always have somebody's work.
TEST(StepSeconds, WhereCoresAreSharedAnUnevenSplitCostsLess) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 4);
  job.tokens = 65536;
  job.mask.kind = MaskKind::kCausal;
  const auto layout = [&](LayoutKind kind) {
    job.parallelism.layout = kind;
    return job;
  };
  const double own = StepSeconds(layout(LayoutKind::kContiguous), SharedCores(4, 4)) /
                     StepSeconds(layout(LayoutKind::kZigzag), SharedCores(4, 4));
  const double shared = StepSeconds(layout(LayoutKind::kContiguous), SharedCores(4, 2)) /
                        StepSeconds(layout(LayoutKind::kZigzag), SharedCores(4, 2));
  EXPECT_GT(own, 1.5);
  EXPECT_LT(shared, 1.1);
}

// --- what was measured ---

TEST(StepSeconds, CountsRowsEdgesAndPassesByThemselves) {
  ClusterSnapshot cluster = FourSlots();
  DeviceRates& rates = cluster.nodes[0].devices[0].rates;
  rates.attention = {{32, 60e9, 50e9, 0, 0, 0, 0}};
  cluster.nodes[0].devices.assign(4, cluster.nodes[0].devices[0]);
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 1);
  job.mask.kind = MaskKind::kCausal;
  job.pass = JobPass::kForwardBackward;
  const auto with = [&](const std::function<void(DeviceRates*)>& change) {
    ClusterSnapshot changed = cluster;
    for (DeviceSpec& device : changed.nodes[0].devices) change(&device.rates);
    const auto planned = PlanOn(job, changed);
    return planned.ok() ? planned->plan.prediction : Prediction();
  };
  const Prediction plain = with([](DeviceRates*) {});
  const double layers = 2, batch = 2, heads = 8, kv_heads = 4, tokens = 4096;
  const Prediction rows = with([](DeviceRates* r) { r->attention[0].forward_row = 1e-7; });
  EXPECT_NEAR(rows.attention_seconds - plain.attention_seconds,
              layers * batch * (heads + kv_heads) * tokens * 1e-7, 1e-9);
  const Prediction edges = with([](DeviceRates* r) { r->attention[0].backward_edge = 1e-7; });
  EXPECT_NEAR(edges.backward.seconds() - plain.backward.seconds(), layers * batch * heads * tokens * 1e-7,
              1e-9);
  EXPECT_EQ(edges.forward.seconds(), plain.forward.seconds());
  const Prediction slow = with([](DeviceRates* r) { r->gemm_weight_gradient_flops = 40e9; });
  EXPECT_NEAR(slow.product_seconds / plain.product_seconds, 4.0 / 3, 1e-6) << "one of three passes at half";
  const Prediction pointwise = with([](DeviceRates* r) { r->pointwise_bytes = 5e9; });
  EXPECT_GT(pointwise.pointwise_seconds, 1.5 * plain.pointwise_seconds);
  EXPECT_NEAR(plain.step_seconds, plain.forward.seconds() + plain.backward.seconds(), 1e-12);
  EXPECT_NEAR(plain.compute_seconds,
              plain.attention_seconds + plain.product_seconds + plain.pointwise_seconds, 1e-12);
  EXPECT_NEAR(plain.compute_seconds, plain.forward.compute_seconds + plain.backward.compute_seconds, 1e-12);
  EXPECT_NEAR(plain.communication_seconds,
              plain.forward.communication_seconds + plain.backward.communication_seconds, 1e-12);
}

TEST(StepSeconds, CopiesOfAHiddenRingTakeTheCoresTime) {
  JobSpec job = WithStrategy(EvenJob(), StrategyKind::kRing, 0, 0, 4);
  job.tokens = 65536;
  ClusterSnapshot spare = SharedCores(4, 8), busy = SharedCores(4, 4);
  for (ClusterSnapshot* cluster : {&spare, &busy}) cluster->nodes[0].local = {0, 5e9};
  const auto with_cores = PlanOn(job, spare), without = PlanOn(job, busy);
  ASSERT_TRUE(with_cores.ok() && without.ok());
  EXPECT_EQ(with_cores->plan.prediction.communication_seconds, 0);
  EXPECT_EQ(without->plan.prediction.communication_seconds, 0) << "nobody waits";
  const double bytes = 2 * 2.0 * 2 * 65536 * 128 * 4 * 3 / 4;  // layers, K and V, batch, keys of others
  EXPECT_NEAR(without->plan.prediction.compute_seconds - with_cores->plan.prediction.compute_seconds,
              bytes / CpuSlot().rates.copy_bytes, 1e-6);
}

}  // namespace
}  // namespace seqpar
