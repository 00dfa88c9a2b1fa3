#include "common/base/netstring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace seqpar {
namespace {

TEST(Netstring, HoldsAnyBytes) {
  const std::vector<std::string> texts = {"hello", "", "4:with colons:", std::string("\0\xff\n", 3)};
  std::string all;
  for (const std::string& text : texts) AppendNetstring(text, &all);
  EXPECT_THAT(all, ::testing::StartsWith("5:hello0:14:4:with"));
  size_t at = 0;
  for (const std::string& text : texts) {
    std::string taken = "before";
    ASSERT_TRUE(TakeNetstring(all, &at, &taken));
    EXPECT_EQ(taken, text);
  }
  EXPECT_EQ(at, all.size());
}

TEST(Netstring, WhatIsNotWholeIsNotTaken) {
  for (const char* broken : {"", "5", "5hello", ":hello", "x:hello", "-1:hello", "6:hello",
                             "18446744073709551615:hello", "99999999999999999999:hello"}) {
    size_t at = 0;
    std::string taken = "before";
    EXPECT_FALSE(TakeNetstring(broken, &at, &taken)) << broken;
    EXPECT_EQ(at, 0u) << broken;
    EXPECT_EQ(taken, "before") << broken;
  }
}

}  // namespace
}  // namespace seqpar
