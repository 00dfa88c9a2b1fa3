#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/status.h"
#include "coordinator/planner/planner.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

// What is refused, and what waits.

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
       LlamaJob(2 << 20),
       EightH100(),
       waits,
       {"does not fit on 8 devices with 70.8 GiB to use each; waits for 16 devices, where R16 would fit"}},
      {"MemoryWithinLimits",
       WithStrategy(LlamaJob(2 << 20), StrategyKind::kUlysses, 0, 4),
       SixteenNodes(),
       infeasible,
       {"no mesh within the job's limits fits: ulysses U4 comes nearest and needs", "may be used",
        "without the limits R8 on 8 devices would fit"}},
      {"MemoryWithinWorkers",
       WithWorkers(LlamaJob(2 << 20), 1, 8),
       EightH100(),
       infeasible,
       {"no mesh within the job's limits fits", "without the limits R16 on 16 devices would fit"}},
      {"MemoryOfMoreThanAnybodyHas",
       WithWorkers(LlamaJob(int64_t{2'000'000'000}), 1, 4),
       FourSlots(),
       infeasible,
       {"no mesh within the job's limits fits",
        "nor does any that was tried on up to 4096 devices like these"}},
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
      {"HybridOfOneAxis",
       WithStrategy(text, StrategyKind::kHybrid, 1, 1),
       FourSlots(),
       infeasible,
       {"strategy hybrid uses at least two axes"}},
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
  PlanOptions whether;
  whether.first_that_fits = true;
  EXPECT_EQ(PlanOn(expected.job, expected.cluster, whether).status(), planned.status());
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

TEST(PlanJob, WaitsForLargerNodesThatTakeNoRanksNow) {
  ClusterSnapshot cluster = MakeCluster(2, 2, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9});
  for (DeviceSpec& device : cluster.nodes[0].devices) device.memory_bytes = 100 << 20;
  cluster.nodes[1].ready = false;
  const JobSpec job = WithWorkers(TextJob(), 1, 2);
  for (const bool only_free : {false, true}) {
    const auto waits = PlanOn(job, cluster, {.only_free = only_free});
    ASSERT_TRUE(absl::IsUnavailable(waits.status())) << waits.status();
    EXPECT_THAT(std::string(waits.status().message()),
                HasSubstr("waits for nodes that take no ranks now (node-1)"));
  }
  // Of no help where it is as small.
  for (DeviceSpec& device : cluster.nodes[1].devices) device.memory_bytes = 100 << 20;
  EXPECT_TRUE(absl::IsFailedPrecondition(PlanOn(job, cluster).status()));
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

}  // namespace
}  // namespace seqpar
