#include "coordinator/planner/device_filter.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/status.h"
#include "coordinator/planner/planner.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

using Labels = std::map<std::string, std::string>;

// node-0 and node-1: four slots each, pool a and b; node-2: two GPUs, pool b.
ClusterSnapshot MixedCluster() {
  ClusterSnapshot cluster = MakeCluster(2, 4, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9});
  NodeSnapshot gpus = MakeCluster(1, 2, H100(), {10e-6, 350e9}, {}).nodes[0];
  gpus.name = "node-2";
  cluster.nodes.push_back(gpus);
  cluster.nodes[0].labels = {{"pool", "a"}};
  cluster.nodes[1].labels = cluster.nodes[2].labels = {{"pool", "b"}, {"zone", "1"}};
  return cluster;
}

JobSpec Asking(DeviceKind kind, const Labels& selector, int min_workers = 1) {
  JobSpec job = TextJob();
  job.devices = {kind, selector};
  job.min_workers = min_workers;
  return job;
}

// "node-0 node-0", or what is wrong.
std::string NodesOf(const absl::StatusOr<PlannedJob>& planned) {
  if (!planned.ok()) return std::string(planned.status().message());
  std::string nodes;
  for (const RankPlan& rank : planned->plan.ranks) nodes += (nodes.empty() ? "" : " ") + rank.node;
  return nodes;
}

TEST(DeviceFilter, PlansOnlyOnWhatIsAskedFor) {
  using enum DeviceKind;
  struct Case {
    const char* name;
    JobSpec job;
    const char* expected;
  };
  const std::vector<Case> cases = {
      {"auto takes the faster kind", Asking(kAuto, {}, 2), "node-2 node-2"},
      {"auto takes the kind of which there are enough", Asking(kAuto, {}, 8),
       "node-0 node-0 node-0 node-0 node-1 node-1 node-1 node-1"},
      {"cpu", Asking(kCpu, {{"pool", "a"}}, 4), "node-0 node-0 node-0 node-0"},
      {"a kind and a label", Asking(kCpu, {{"pool", "b"}}, 4), "node-1 node-1 node-1 node-1"},
      {"two labels", Asking(kCuda, {{"pool", "b"}, {"zone", "1"}}, 2), "node-2 node-2"},
      {"a gang is of one kind", Asking(kAuto, {{"pool", "b"}}, 6),
       "waits for 6 devices on nodes with pool=b, 4 attached"},
      {"too few of a kind", Asking(kCuda, {}, 3), "waits for 3 cuda devices, 2 attached"},
      {"no such value", Asking(kAuto, {{"pool", "c"}}),
       "waits for 1 device on nodes with pool=c, 0 attached; attached nodes have pool a, b"},
      {"no such label", Asking(kCuda, {{"pol", "a"}}),
       "waits for 1 cuda device on nodes with pol=a, 0 attached; no attached node has a label pol, nearest: "
       "pool"},
      {"the label is on nodes of the other kind", Asking(kCuda, {{"pool", "a"}}),
       "waits for 1 cuda device on nodes with pool=a, 0 attached; no attached node has all of it"},
  };
  for (const Case& c : cases) {
    const auto planned = PlanOn(c.job, MixedCluster());
    EXPECT_EQ(NodesOf(planned), c.expected) << c.name;
    EXPECT_TRUE(planned.ok() || absl::IsUnavailable(planned.status())) << c.name;
  }
}

TEST(DeviceFilter, NamesTheKindsThatThereAre) {
  EXPECT_EQ(NodesOf(PlanOn(Asking(DeviceKind::kCuda, {}), FourSlots())),
            "waits for 1 cuda device, 0 attached; attached are cpu devices");
  ClusterSnapshot none = FourSlots();
  none.nodes[0].ready = false;
  EXPECT_EQ(NodesOf(PlanOn(Asking(DeviceKind::kCuda, {}), none)), "waits for 1 cuda device, 0 attached");
}

TEST(DeviceFilter, NamesTheNodesThatWouldDoButTakeNoRanksNow) {
  ClusterSnapshot cluster = MixedCluster();
  cluster.nodes[1].ready = false;
  EXPECT_EQ(NodesOf(PlanOn(Asking(DeviceKind::kCpu, {{"pool", "b"}}), cluster)),
            "waits for 1 cpu device on nodes with pool=b, 0 attached; node-1 takes no ranks now");
  cluster.nodes[2].set_aside = {{0, "holds memory"}, {1, "holds memory"}};
  EXPECT_EQ(
      NodesOf(PlanOn(Asking(DeviceKind::kAuto, {{"zone", "1"}}), cluster)),
      "waits for 1 device on nodes with zone=1, 0 attached; node-1, node-2/0, node-2/1 take no ranks now");
  ClusterSnapshot alone = FourSlots();
  alone.nodes[0].ready = false;
  EXPECT_EQ(NodesOf(PlanOn(TextJob(), alone)), "waits for 1 device, 0 attached; node-0 takes no ranks now");
  // Also where some would do, only not enough of them; of many some are named.
  ClusterSnapshot many = MakeCluster(11, 4, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9});
  for (size_t n = 1; n < many.nodes.size(); ++n) many.nodes[n].ready = false;
  EXPECT_EQ(
      NodesOf(PlanOn(WithWorkers(TextJob(), 5, 0), many)),
      "waits for 5 devices, 4 attached; node-1, node-2, node-3, node-4, node-5, node-6, node-7, node-8, and "
      "2 more take no ranks now");
}

TEST(DeviceFilter, BusyDevicesAreNoMismatch) {
  ClusterSnapshot cluster = MixedCluster();
  cluster.nodes[2].free = {false, false};
  EXPECT_EQ(NodesOf(PlanOn(Asking(DeviceKind::kCuda, {}), cluster, {.only_free = true})),
            "waits for 1 cuda device, 0 free");
}

TEST(DeviceFilter, AutoTakesTheKindWhereTheJobFits) {
  ClusterSnapshot cluster = MixedCluster();
  for (DeviceSpec& device : cluster.nodes[2].devices) device.memory_bytes = 100 << 20;
  EXPECT_EQ(NodesOf(PlanOn(WithWorkers(Asking(DeviceKind::kAuto, {{"pool", "b"}}), 1, 2), cluster)),
            "node-1 node-1");
  // Asked for GPUs alone, it is refused as on any cluster of such.
  EXPECT_TRUE(
      absl::IsFailedPrecondition(PlanOn(WithWorkers(Asking(DeviceKind::kCuda, {}), 1, 2), cluster).status()));
}

TEST(DeviceFilter, TheReasonNamesTheKindWhereThereIsAChoice) {
  const auto chosen = PlanOn(Asking(DeviceKind::kAuto, {}, 2), MixedCluster());
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_NE(chosen->plan.reason.find(" on cuda devices: "), std::string::npos) << chosen->plan.reason;
  const auto asked = PlanOn(Asking(DeviceKind::kCpu, {}, 2), MixedCluster());
  ASSERT_TRUE(asked.ok()) << asked.status();
  EXPECT_EQ(asked->plan.reason.find(" on cpu devices: "), std::string::npos) << asked->plan.reason;
}

TEST(DeviceFilter, DevicesThatAreSetAsideTakeNoRanks) {
  ClusterSnapshot cluster = MixedCluster();
  cluster.nodes[2].set_aside[1] = "holds memory";
  EXPECT_EQ(NodesOf(PlanOn(Asking(DeviceKind::kCuda, {}), cluster)), "node-2");
  EXPECT_EQ(NodesOf(PlanOn(Asking(DeviceKind::kCuda, {}, 2), cluster)),
            "waits for 2 cuda devices, 1 attached; node-2/1 takes no ranks now");
  // What fits only on more devices waits for those that may come back.
  for (DeviceSpec& device : cluster.nodes[2].devices) device.memory_bytes = 500 << 20;
  JobSpec job = WithWorkers(Asking(DeviceKind::kCuda, {}), 1, 2);
  ASSERT_TRUE(PlanOn(job, MixedCluster()).ok());
  cluster.nodes[2].devices[1].memory_bytes = int64_t{80} << 30;
  const std::string why = NodesOf(PlanOn(job, cluster));
  EXPECT_NE(why.find("take no ranks now (node-2/1)"), std::string::npos) << why;
}

}  // namespace
}  // namespace seqpar
