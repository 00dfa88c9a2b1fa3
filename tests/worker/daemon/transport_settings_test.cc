#include "worker/daemon/transport_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(TransportSettings, TheInterfaceIsThatOfBothTransports) {
  WorkerConfig config;
  EXPECT_THAT(TransportSettings(config, "rank-0"), IsEmpty());
  config.data_interface = "eth1";
  EXPECT_THAT(TransportSettings(config, "rank-0"),
              ElementsAre("UCX_NET_DEVICES=eth1", "NCCL_SOCKET_IFNAME=eth1"));
}

TEST(LinkKey, ChangesWithWhatLinksDependOn) {
  WorkerConfig config;
  const std::string key = LinkKey(config);
  EXPECT_EQ(LinkKey(config), key);
  config.node_name = "called otherwise";
  EXPECT_EQ(LinkKey(config), key);
  config.data_interface = "eth1";
  EXPECT_NE(LinkKey(config), key);
}

TEST(UnknownInterfaces, AreThoseThatNoDeviceIsCalledBy) {
  const std::vector<std::string> devices = {"lo", "eth0", "mlx5_0"};
  for (const char* asked : {"", "lo", "eth0,lo", "mlx5_0:1", "all", "^lo", "mlx5_0:1,eth0,"}) {
    EXPECT_THAT(UnknownInterfaces(asked, devices), IsEmpty()) << asked;
  }
  EXPECT_THAT(UnknownInterfaces("eth1", devices), ElementsAre("eth1"));
  EXPECT_THAT(UnknownInterfaces("eth0,eth,mlx5_1:1", devices), ElementsAre("eth", "mlx5_1:1"));
  EXPECT_THAT(UnknownInterfaces("^wlan0", devices), ElementsAre("wlan0"));
}

}  // namespace
}  // namespace seqpar
