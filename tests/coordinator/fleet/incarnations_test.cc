#include "coordinator/fleet/incarnations.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

class IncarnationsTest : public ::testing::Test {
 protected:
  bool Admit(const std::string& node, int64_t incarnation) {
    const absl::Status admitted = incarnations_.Admit(node, incarnation, [&](const std::string& asked) {
      EXPECT_EQ(asked, node);
      return there_;
    });
    if (admitted.ok()) return true;
    EXPECT_EQ(ReasonOf(admitted), reason::kNodeReplaced);
    EXPECT_GT(RetrySecondsOf(admitted), 0);
    return false;
  }

  Incarnations incarnations_;
  bool there_ = true;
};

TEST_F(IncarnationsTest, TheOneThatCameLaterStays) {
  EXPECT_TRUE(Admit("a", 7));
  EXPECT_TRUE(Admit("a", 7)) << "on another stream";
  EXPECT_TRUE(Admit("a", 3)) << "whatever its number";
  EXPECT_FALSE(Admit("a", 7));
  EXPECT_TRUE(Admit("b", 7)) << "of another node";
  EXPECT_TRUE(Admit("a", 3));
  EXPECT_TRUE(Admit("a", 5));
  EXPECT_FALSE(Admit("a", 7));
  EXPECT_FALSE(Admit("a", 3));
}

TEST_F(IncarnationsTest, OnceItIsLostTheEarlierOneMayComeBack) {
  EXPECT_TRUE(Admit("a", 1));
  EXPECT_TRUE(Admit("a", 2));
  there_ = false;
  EXPECT_TRUE(Admit("a", 1));
  there_ = true;
  EXPECT_FALSE(Admit("a", 2)) << "now it is the other that was replaced";
}

TEST_F(IncarnationsTest, KnowsSomeOfEachNodeAndNotEveryNodeForEver) {
  for (int64_t i = 0; i < 1000; ++i) EXPECT_TRUE(Admit("a", i));
  EXPECT_FALSE(Admit("a", 998));
  EXPECT_TRUE(Admit("a", 0)) << "so long ago that it is not known any more";
  for (int i = 0; i < 20'000; ++i) EXPECT_TRUE(Admit(absl::StrCat("n-", i), 1));
  EXPECT_TRUE(Admit("a", 998));
}

}  // namespace
}  // namespace seqpar
