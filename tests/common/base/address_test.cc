#include "common/base/address.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

TEST(Address, KnowsLoopback) {
  for (const char* address : {"127.0.0.1:7700", "127.9.9.9:1", "localhost:1", "[::1]:1"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address : {"10.0.0.1:7700", "head:1", "localhost.example:1", "127.0.0.1.example:1",
                              "0.0.0.0:7700", "[::]:7700", ":7700", "", "unix:/run/seqpar"}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

TEST(Address, SaysWhatIsWrong) {
  const auto fault = [](const char* address, bool port_needed) {
    return AddressFault(address, "127.0.0.1:7700", port_needed);
  };
  for (const bool port_needed : {false, true}) {
    for (const char* address : {"127.0.0.1:7700", "head:0", "[::1]:65535", ":7700", "unix:/run/seqpar",
                                "dns:///head:7700", "::1", "fe80::a"}) {
      EXPECT_EQ(fault(address, port_needed), "") << address;
    }
    EXPECT_EQ(fault("", port_needed), "is empty; must be HOST:PORT; nearest: 127.0.0.1:7700");
    EXPECT_EQ(fault("10.0.0.1:99999", port_needed),
              "is '10.0.0.1:99999'; the port must be 0 to 65535; nearest: 10.0.0.1:7700");
    EXPECT_EQ(fault("[::1]:http", port_needed),
              "is '[::1]:http'; the port must be 0 to 65535; nearest: [::1]:7700");
    EXPECT_NE(fault("head:", port_needed), "");
    EXPECT_NE(fault("head:-1", port_needed), "");
  }
  // Whom a client dials by a name alone it reaches on the port of https.
  EXPECT_EQ(fault("head", false), "");
  EXPECT_EQ(fault("head", true), "is 'head'; must be HOST:PORT; nearest: head:7700");
  EXPECT_EQ(fault("[::1]", true), "is '[::1]'; must be HOST:PORT; nearest: [::1]:7700");
}

}  // namespace
}  // namespace seqpar
