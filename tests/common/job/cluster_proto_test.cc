#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

v1::Cluster GoodCluster() {
  v1::Cluster cluster;
  v1::NodeSpec* node = cluster.add_nodes();
  node->set_name("n");
  node->set_count(2);
  node->set_devices_each(3);
  v1::DeviceSpec* device = node->add_devices();
  device->set_kind("cpu");
  device->set_memory_bytes(1 << 30);
  device->set_threads(2);
  v1::DeviceRates* rates = device->mutable_rates();
  rates->set_gemm_flops(1e11);
  rates->set_attention_forward_flops(2e11);
  rates->set_attention_backward_flops(3e11);
  rates->set_copy_bytes(1e10);
  rates->set_peak_flops(4e11);
  node->mutable_local()->set_bandwidth(1e10);
  (*node->mutable_labels())["pool"] = "a";
  cluster.mutable_network()->set_latency(1e-5);
  cluster.mutable_network()->set_bandwidth(1e9);
  return cluster;
}

TEST(ClusterProto, RepeatsNodesAndDevices) {
  const absl::StatusOr<ClusterSnapshot> cluster = ClusterFromProto(GoodCluster());
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  ASSERT_EQ(cluster->nodes.size(), 2u);
  EXPECT_EQ(cluster->nodes[0].name, "n-0");
  EXPECT_EQ(cluster->nodes[1].name, "n-1");
  EXPECT_EQ(cluster->nodes[1].devices.size(), 3u);
  EXPECT_EQ(cluster->nodes[1].free, std::vector<bool>(3, true));
  EXPECT_TRUE(cluster->nodes[1].ready);
  EXPECT_EQ(cluster->nodes[1].devices[2].rates.peak_flops, 4e11);
  EXPECT_EQ(cluster->nodes[0].local.bandwidth, 1e10);
  EXPECT_EQ(cluster->nodes[1].labels.at("pool"), "a");
  EXPECT_EQ(cluster->network.latency, 1e-5);
  EXPECT_TRUE(MessageDifferencer::Equals(DeviceToProto(cluster->nodes[0].devices[0]),
                                         GoodCluster().nodes(0).devices(0)));
}

TEST(ClusterProto, OneNodeKeepsItsNameAndNeedsNoNetwork) {
  v1::Cluster proto = GoodCluster();
  proto.mutable_nodes(0)->set_count(1);
  proto.clear_network();
  const absl::StatusOr<ClusterSnapshot> cluster = ClusterFromProto(proto);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_EQ(cluster->nodes[0].name, "n");
}

TEST(ClusterProto, NamesEveryViolationAtOnce) {
  v1::Cluster proto = GoodCluster();
  proto.mutable_nodes(0)->mutable_devices(0)->set_kind("cud");
  proto.mutable_nodes(0)->mutable_devices(0)->set_memory_bytes(0);
  proto.mutable_nodes(0)->mutable_devices(0)->mutable_rates()->set_gemm_flops(-1);
  proto.mutable_nodes(0)->mutable_local()->set_latency(-1);
  proto.clear_network();
  const absl::Status status = ClusterFromProto(proto).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  std::vector<std::string> fields;
  for (const Violation& violation : ViolationsOf(status)) fields.push_back(violation.field);
  EXPECT_THAT(fields, testing::ElementsAre("nodes[0].devices[0].kind", "nodes[0].devices[0].memory_bytes",
                                           "nodes[0].devices[0].rates.gemm_flops", "nodes[0].local.latency",
                                           "network.bandwidth"));
  EXPECT_EQ(ViolationsOf(status)[0].nearest, "cuda");
}

TEST(ClusterProto, RefusesToRepeatADeviceThatIsNotThere) {
  v1::Cluster proto = GoodCluster();
  proto.mutable_nodes(0)->clear_devices();
  proto.mutable_nodes(0)->set_devices_each(10);
  EXPECT_THAT(std::string(ClusterFromProto(proto).status().message()),
              HasSubstr("nodes[0].devices: must list at least one device"));
}

TEST(ClusterProto, RefusesLongWordsThatManyNodesWouldHave) {
  const auto told = [](const std::function<void(v1::NodeSpec*)>& change) {
    v1::Cluster proto = GoodCluster();
    proto.mutable_nodes(0)->set_count(65536);
    proto.mutable_nodes(0)->set_devices_each(1);
    while (proto.nodes(0).devices_size() > 1) proto.mutable_nodes(0)->mutable_devices()->RemoveLast();
    change(proto.mutable_nodes(0));
    return std::string(ClusterFromProto(proto).status().message());
  };
  const std::string long_word(10'000'000, 'x');
  EXPECT_THAT(told([&](v1::NodeSpec* node) { node->set_name(long_word); }), HasSubstr("nodes[0].name"));
  EXPECT_THAT(told([&](v1::NodeSpec* node) { node->mutable_devices(0)->set_name(long_word); }),
              HasSubstr("nodes[0].devices[0].name"));
  EXPECT_THAT(told([&](v1::NodeSpec* node) { (*node->mutable_labels())["a"] = long_word; }),
              HasSubstr("nodes[0].labels"));
  EXPECT_THAT(told([](v1::NodeSpec* node) {
                for (int i = 1; i < 100'000; ++i) {
                  node->mutable_devices(0)->mutable_rates()->add_attention()->set_head_dim(i);
                }
              }),
              HasSubstr("nodes[0].devices[0].rates.attention"));
}

TEST(ClusterProto, RefusesNamesTwiceAndClustersWithoutEnd) {
  v1::Cluster proto = GoodCluster();
  *proto.add_nodes() = proto.nodes(0);
  EXPECT_THAT(std::string(ClusterFromProto(proto).status().message()),
              HasSubstr("another node has the name 'n-0'"));
  proto = GoodCluster();
  proto.mutable_nodes(0)->set_count(2'000'000'000);
  EXPECT_THAT(std::string(ClusterFromProto(proto).status().message()), HasSubstr("more than 65536 devices"));
  // However much more: what is counted does not run over.
  proto.mutable_nodes(0)->set_count(std::numeric_limits<int32_t>::max());
  proto.mutable_nodes(0)->set_devices_each(std::numeric_limits<int32_t>::max());
  for (int i = 0; i < 3; ++i) *proto.add_nodes() = v1::NodeSpec(proto.nodes(0));
  EXPECT_THAT(std::string(ClusterFromProto(proto).status().message()),
              HasSubstr("nodes[3]: the cluster has more than"));
}

}  // namespace
}  // namespace seqpar
