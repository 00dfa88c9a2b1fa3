#include "coordinator/fleet/node_registry.h"

#include <gtest/gtest.h>

#include "absl/status/status.h"

namespace seqpar {
namespace {

class NullLink : public NodeLink {
 public:
  void Send(v1::CoordinatorMessage) override {}
  void Close(const absl::Status&) override {}
};

v1::Hello Hello(const std::string& node, int64_t incarnation, int devices) {
  v1::Hello hello;
  hello.set_node(node);
  hello.set_incarnation(incarnation);
  for (int i = 0; i < devices; ++i) hello.add_devices()->set_kind("cpu");
  return hello;
}

TEST(NodeRegistry, DevicesAreTakenAndGivenBackByJob) {
  NodeRegistry registry;
  registry.Attach(Hello("a", 1, 3), std::make_shared<NullLink>(), 1, 7);
  registry.Occupy("a", 1, "j-1", 0);
  registry.Occupy("a", 2, "j-2", 5);
  EXPECT_EQ(registry.Snapshot()->nodes[0].free, (std::vector<bool>{true, false, false}));
  const v1::Node node = NodeRegistry::ToProto("a", *registry.Find("a"), 2.5);
  EXPECT_EQ(node.devices(2).job(), "j-2");
  EXPECT_EQ(node.devices(2).rank(), 5);
  EXPECT_EQ(node.lease_left(), 2.5);
  registry.Release("j-1");
  EXPECT_EQ(registry.Snapshot()->nodes[0].free, (std::vector<bool>{true, true, false}));
}

TEST(NodeRegistry, WhatIsTakenStaysTakenWhenTheNodeComesBack) {
  NodeRegistry registry;
  // A coordinator that was started anew knows the job before the node.
  registry.Occupy("a", 0, "j-1", 0);
  EXPECT_TRUE(registry.Snapshot()->nodes.empty());
  registry.Attach(Hello("a", 1, 2), std::make_shared<NullLink>(), 1, 7);
  EXPECT_EQ(registry.Snapshot()->nodes[0].free, (std::vector<bool>{false, true}));
}

TEST(NodeRegistry, StatesAndReadiness) {
  NodeRegistry registry;
  const NodeEntry& node = registry.Attach(Hello("a", 1, 1), std::make_shared<NullLink>(), 1, 7);
  EXPECT_EQ(node.State(), v1::NODE_STATE_READY);
  registry.SetDrained("a", true);
  EXPECT_EQ(node.State(), v1::NODE_STATE_DRAINING);
  EXPECT_FALSE(registry.Snapshot()->nodes[0].ready);
  registry.Change("a")->lost = true;
  EXPECT_EQ(node.State(), v1::NODE_STATE_LOST);
  EXPECT_FALSE(registry.Snapshot()->nodes[0].ready) << "known, and it may come back";
  // A user's drain outlives the worker's restart.
  registry.Attach(Hello("a", 2, 1), std::make_shared<NullLink>(), 2, 9);
  EXPECT_EQ(node.State(), v1::NODE_STATE_DRAINING);
  EXPECT_TRUE(NodeRegistry::ToProto("a", node, 0).drained());
  registry.SetDrained("a", false);
  EXPECT_EQ(node.State(), v1::NODE_STATE_READY);
}

TEST(NodeRegistry, DevicesThatAreSetAsideAreSeenByThePlannerAndByUsers) {
  NodeRegistry registry;
  v1::Hello hello = Hello("a", 1, 2);
  (*hello.mutable_labels())["pool"] = "b";
  (*hello.mutable_set_aside())[1] = "holds 1.00 GiB";
  const NodeEntry& node = registry.Attach(hello, std::make_shared<NullLink>(), 1, 7);
  const std::string before = registry.KnownNodes();
  const NodeSnapshot snapshot = registry.Snapshot()->nodes[0];
  EXPECT_TRUE(snapshot.TakesRanks(0));
  EXPECT_FALSE(snapshot.TakesRanks(1));
  EXPECT_EQ(snapshot.labels.at("pool"), "b");
  EXPECT_EQ(NodeRegistry::ToProto("a", node, 0).devices(1).set_aside(), "holds 1.00 GiB");
  v1::Heartbeat heartbeat;
  EXPECT_TRUE(registry.SetAside("a", heartbeat.set_aside()));
  EXPECT_FALSE(registry.SetAside("a", heartbeat.set_aside())) << "nothing changed";
  EXPECT_TRUE(registry.Snapshot()->nodes[0].TakesRanks(1));
  EXPECT_NE(registry.KnownNodes(), before) << "jobs that wait for nodes are planned again";
  EXPECT_EQ(NodeRegistry::ToProto("a", node, 0).devices(1).set_aside(), "");
}

TEST(NodeRegistry, ASnapshotIsMadeOnceForEachVersion) {
  NodeRegistry registry;
  registry.Attach(Hello("a", 1, 2), std::make_shared<NullLink>(), 1, 7);
  const auto first = registry.Snapshot();
  const std::string known = registry.KnownNodes();
  EXPECT_EQ(registry.Snapshot(), first);
  EXPECT_EQ(registry.Find("a")->devices.size(), 2u);
  EXPECT_FALSE(registry.SetAside("a", {}));
  EXPECT_EQ(registry.Snapshot(), first) << "nothing changed";
  registry.Occupy("a", 0, "j-1", 0);
  const auto second = registry.Snapshot();
  EXPECT_FALSE(second->nodes[0].free[0]);
  EXPECT_TRUE(first->nodes[0].free[0]) << "others may read it still";
  EXPECT_EQ(registry.KnownNodes(), known) << "whatever is free";
  registry.Release("j-1");
  EXPECT_TRUE(registry.Snapshot()->nodes[0].free[0]);
  registry.Change("a")->draining_itself = true;
  EXPECT_FALSE(registry.Snapshot()->nodes[0].ready);
  EXPECT_NE(registry.KnownNodes(), known);
  registry.SetDrained("a", true);
  registry.Change("a")->draining_itself = false;
  EXPECT_FALSE(registry.Snapshot()->nodes[0].ready);
}

TEST(NodeRegistry, ADrainIsKnownBeforeItsNode) {
  NodeRegistry registry;
  registry.SetDrained("a", true);
  EXPECT_FALSE(registry.Find("a")->known());
  EXPECT_TRUE(registry.Snapshot()->nodes.empty());
  const NodeEntry& node = registry.Attach(Hello("a", 1, 1), std::make_shared<NullLink>(), 1, 7);
  EXPECT_EQ(node.State(), v1::NODE_STATE_DRAINING);
}

TEST(NodeRegistry, AWorkerThatWasToldToStopTakesNothing) {
  NodeRegistry registry;
  v1::Hello hello = Hello("a", 1, 1);
  hello.set_draining(true);
  const NodeEntry& node = registry.Attach(hello, std::make_shared<NullLink>(), 1, 7);
  EXPECT_EQ(node.State(), v1::NODE_STATE_DRAINING);
  EXPECT_FALSE(NodeRegistry::ToProto("a", node, 0).drained());
}

TEST(NodeRegistry, AWorkerThatWasToldToStopDoesNotTakeItBack) {
  NodeRegistry registry;
  v1::Hello hello = Hello("a", 1, 1);
  hello.set_draining(true);
  registry.Attach(hello, std::make_shared<NullLink>(), 1, 7);
  hello.set_draining(false);
  EXPECT_EQ(registry.Attach(hello, std::make_shared<NullLink>(), 2, 8).State(), v1::NODE_STATE_DRAINING);
  hello.set_incarnation(hello.incarnation() + 1);
  EXPECT_EQ(registry.Attach(hello, std::make_shared<NullLink>(), 3, 9).State(), v1::NODE_STATE_READY);
}

}  // namespace
}  // namespace seqpar
