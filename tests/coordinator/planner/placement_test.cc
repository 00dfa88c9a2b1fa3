#include "coordinator/planner/placement.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "coordinator/planner/planner.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

TEST(Placement, TensorNeighboursShareANode) {
  const auto planned = PlanOn(WithStrategy(LlamaJob(1 << 20), StrategyKind::kHybrid, 8, 0, 4), SlowNetwork());
  ASSERT_TRUE(planned.ok()) << planned.status();
  std::set<std::string> nodes;
  for (const RankPlan& rank : planned->plan.ranks) {
    nodes.insert(rank.node);
    for (int peer : rank.tensor_group) EXPECT_EQ(planned->plan.ranks[peer].node, rank.node);
  }
  EXPECT_EQ(nodes.size(), 4u);
}

TEST(Placement, UsesTheTightestNodeAndTheFewest) {
  ClusterSnapshot cluster = MakeCluster(3, 8, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9});
  cluster.nodes[1].free = {true, true, true, true, false, false, false, false};
  const auto tight = PlanOn(WithWorkers(TextJob(), 4, 4), cluster, {.only_free = true});
  ASSERT_TRUE(tight.ok()) << tight.status();
  for (const RankPlan& rank : tight->plan.ranks) EXPECT_EQ(rank.node, "node-1");
  const auto wide = PlanOn(WithWorkers(TextJob(), 16, 16), cluster, {.only_free = true});
  ASSERT_TRUE(wide.ok()) << wide.status();
  for (const RankPlan& rank : wide->plan.ranks) EXPECT_NE(rank.node, "node-1");
}

ClusterSnapshot FourSlotsOnTwoCores() {
  ClusterSnapshot cluster = FourSlots();
  cluster.nodes[0].cores = 2;
  return cluster;
}

TEST(Placement, SlotsThatShareCoresAreFasterByThemselves) {
  const ClusterSnapshot cluster = FourSlotsOnTwoCores();
  const auto two = PlaceGang(cluster, 2, {}), four = PlaceGang(cluster, 4, {});
  ASSERT_TRUE(two && four);
  // Rates are of a busy node: each of four slots has half of a core.
  EXPECT_EQ(two->rates.gemm_flops, 2 * CpuSlot().rates.gemm_flops);
  EXPECT_EQ(two->contention, 1);
  EXPECT_EQ(four->rates.gemm_flops, two->rates.gemm_flops);
  EXPECT_EQ(four->contention, 2);
  EXPECT_TRUE(two->copies_compete) << "two threads on two cores leave none over";
  EXPECT_EQ(four->node_kind, "cpu slot, 4 slots of 1 thread on 2 cores");
}

TEST(Placement, OtherJobsSlotsRunToo) {
  ClusterSnapshot cluster = FourSlotsOnTwoCores();
  cluster.nodes[0].free = {true, true, false, false};
  const auto gang = PlaceGang(cluster, 2, {.only_free = true});
  ASSERT_TRUE(gang);
  EXPECT_EQ(gang->contention, 2);
}

TEST(Placement, DevicesWithCoresOfTheirOwnDoNotContend) {
  const auto gang = PlaceGang(FourSlots(), 4, {});
  ASSERT_TRUE(gang);
  EXPECT_EQ(gang->contention, 1);
  EXPECT_FALSE(gang->copies_compete);
  EXPECT_EQ(gang->rates.gemm_flops, CpuSlot().rates.gemm_flops);
}

}  // namespace
}  // namespace seqpar
