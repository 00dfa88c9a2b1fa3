#include "coordinator/planner/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/planner/placement.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr LinkRates kAssumed = {50e-6, 1e9};

// node-0 to node-3; the first two in zone x, the others in y.
ClusterSnapshot FourNodes() {
  ClusterSnapshot cluster = MakeCluster(4, 2, CpuSlot(), {1e-6, 1e10}, kAssumed);
  cluster.network_assumed = true;
  for (int i = 0; i < 4; ++i) cluster.nodes[i].labels[kZoneLabel] = i < 2 ? "x" : "y";
  return cluster;
}

TEST(Network, OfWhatTheClusterSaysThereIsNothingToSay) {
  ClusterSnapshot cluster = FourNodes();
  cluster.network_assumed = false;
  const GangNetwork network = NetworkBetween(cluster, "cpu", {0, 1});
  EXPECT_EQ(network.rates.bandwidth, 1e9);
  EXPECT_EQ(network.from, "");
}

TEST(Network, WhatNobodyMeasuredIsAssumedAndSaysSo) {
  ClusterSnapshot cluster = FourNodes();
  EXPECT_THAT(NetworkBetween(cluster, "cpu", {0, 1}).from, HasSubstr("assumed"));
  cluster.links.push_back({"cuda", "node-0", "node-1", {1e-6, 5e10}});
  const GangNetwork network = NetworkBetween(cluster, "cpu", {0, 1});
  EXPECT_EQ(network.rates.bandwidth, 1e9) << "that was between other devices";
  EXPECT_THAT(network.from, HasSubstr("assumed"));
}

TEST(Network, TheSlowestPairOfTheGangCounts) {
  ClusterSnapshot cluster = FourNodes();
  for (const char* b : {"node-1", "node-2"}) cluster.links.push_back({"cpu", "node-0", b, {30e-6, 3e9}});
  cluster.links.push_back({"cpu", "node-1", "node-2", {20e-6, 2e9}});
  GangNetwork network = NetworkBetween(cluster, "cpu", {0, 1});
  EXPECT_EQ(network.rates.bandwidth, 3e9);
  EXPECT_EQ(network.from, "measured between node-0 and node-1");
  network = NetworkBetween(cluster, "cpu", {2, 1, 0});
  EXPECT_EQ(network.rates.bandwidth, 2e9);
  EXPECT_EQ(network.rates.latency, 30e-6);
  EXPECT_EQ(network.from, "measured between node-1 and node-2");
}

TEST(Network, APairThatWasNotMeasuredIsAsOthersOfItsZones) {
  ClusterSnapshot cluster = MakeCluster(5, 2, CpuSlot(), {1e-6, 1e10}, kAssumed);
  cluster.network_assumed = true;
  cluster.links.push_back({"cpu", "node-1", "node-2", {20e-6, 2e9}});
  cluster.links.push_back({"cpu", "node-0", "node-2", {30e-6, 3e9}});
  cluster.links.push_back({"cpu", "node-1", "node-4", {40e-6, 4e9}});
  const GangNetwork network = NetworkBetween(cluster, "cpu", {0, 1});
  EXPECT_EQ(network.rates.bandwidth, 3e9) << "the median of three";
  EXPECT_EQ(network.rates.latency, 30e-6);
  EXPECT_THAT(network.from, HasSubstr("other"));
}

TEST(Network, ANodeIsNoBetterThanItsBestLink) {
  ClusterSnapshot cluster = MakeCluster(6, 2, CpuSlot(), {1e-6, 1e10}, kAssumed);
  for (const char* b : {"node-1", "node-2", "node-3"}) {
    cluster.links.push_back({"cpu", "node-4", b, {30e-6, 3e9}});
  }
  cluster.links.push_back({"cpu", "node-0", "node-5", {90e-6, 1e8}});
  const GangNetwork network = NetworkBetween(cluster, "cpu", {0, 1});
  EXPECT_EQ(network.rates.bandwidth, 1e8);
  EXPECT_EQ(network.rates.latency, 90e-6);
  EXPECT_EQ(network.from, "measured between node-0 and others");
}

TEST(Network, BetweenZonesThatWereNeverMeasuredItIsAssumed) {
  ClusterSnapshot cluster = FourNodes();
  cluster.links.push_back({"cpu", "node-0", "node-1", {1e-6, 1e10}});
  cluster.links.push_back({"cpu", "node-2", "node-3", {1e-6, 1e10}});
  EXPECT_EQ(NetworkBetween(cluster, "cpu", {0, 1}).rates.bandwidth, 1e10);
  GangNetwork network = NetworkBetween(cluster, "cpu", {0, 1, 2, 3});
  EXPECT_EQ(network.rates.bandwidth, 1e9);
  EXPECT_THAT(network.from, HasSubstr("assumed"));
  cluster.links.push_back({"cpu", "node-1", "node-2", {2e-6, 5e9}});
  network = NetworkBetween(cluster, "cpu", {0, 1, 2, 3});
  EXPECT_EQ(network.rates.bandwidth, 5e9);
}

TEST(Network, APlanOverNodesFollowsItAndSaysWhichItUsed) {
  ClusterSnapshot cluster = FourNodes();
  const JobSpec job = WithWorkers(TextJob(), 4, 4);
  const auto assumed = PlanOn(job, cluster);
  ASSERT_TRUE(assumed.ok()) << assumed.status();
  EXPECT_THAT(assumed->plan.reason,
              HasSubstr("between nodes 954 MiB/s and 50.0 us, assumed, not measured yet"));
  for (int a = 0; a < 4; ++a) {
    for (int b = a + 1; b < 4; ++b) {
      cluster.links.push_back({"cpu", cluster.nodes[a].name, cluster.nodes[b].name, {50e-6, 1e6}});
    }
  }
  const auto measured = PlanOn(job, cluster);
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_THAT(measured->plan.reason, HasSubstr("measured between node-0 and node-1"));
  EXPECT_GT(measured->plan.prediction.communication_seconds, assumed->plan.prediction.communication_seconds);
  const auto within = PlanOn(WithWorkers(TextJob(), 2, 2), cluster);
  ASSERT_TRUE(within.ok()) << within.status();
  EXPECT_THAT(within->plan.reason, Not(HasSubstr("between nodes"))) << "on one node";
}

}  // namespace
}  // namespace seqpar
