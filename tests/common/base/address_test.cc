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

}  // namespace
}  // namespace seqpar
