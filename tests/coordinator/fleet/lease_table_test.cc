#include "coordinator/fleet/lease_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(LeaseTable, HeartbeatsExtendAndSilenceEnds) {
  LeaseTable leases(10);
  leases.Grant("a", 1, 0);
  EXPECT_EQ(leases.Extend("a", 1, 9), 1) << "what was left of it";
  EXPECT_THAT(leases.TakeExpired(18), IsEmpty());
  EXPECT_EQ(leases.Left("a", 18), 1);
  leases.Grant("b", 2, 18);
  EXPECT_THAT(leases.AllLeft(18), ElementsAre(std::make_pair("a", 1), std::make_pair("b", 10)));
  EXPECT_THAT(leases.TakeExpired(19), ElementsAre("a"));
  // Once, and for good: the worker must attach anew.
  EXPECT_THAT(leases.TakeExpired(20), IsEmpty());
  EXPECT_FALSE(leases.Extend("a", 1, 20));
  EXPECT_EQ(leases.Left("a", 20), std::nullopt);
}

TEST(LeaseTable, AHeartbeatAfterTheEndDoesNotBringItBack) {
  LeaseTable leases(10);
  leases.Grant("a", 1, 0);
  EXPECT_FALSE(leases.Extend("a", 1, 10));
  EXPECT_THAT(leases.TakeExpired(10), ElementsAre("a"));
}

TEST(LeaseTable, OnlyTheLatestStreamExtends) {
  LeaseTable leases(10);
  leases.Grant("a", 1, 0);
  leases.Grant("a", 2, 5);
  EXPECT_FALSE(leases.Extend("a", 1, 6));
  EXPECT_TRUE(leases.Extend("a", 2, 6));
  EXPECT_THAT(leases.TakeExpired(15), IsEmpty());
}

TEST(LeaseTable, NamesTheMomentAtWhichToLookAgain) {
  LeaseTable leases(10);
  EXPECT_EQ(leases.NextEndUs(), INT64_MAX);
  leases.Grant("a", 1, 0);
  leases.Grant("b", 2, 3);
  EXPECT_EQ(leases.NextEndUs(), 10);
  EXPECT_TRUE(leases.Extend("a", 1, 5));
  EXPECT_EQ(leases.NextEndUs(), 13);
  EXPECT_THAT(leases.TakeExpired(leases.NextEndUs()), ElementsAre("b"));
}

TEST(LeaseTable, ANodeThatIsOnlyExpectedHasAFullLease) {
  LeaseTable leases(10);
  leases.Grant("a", 0, 100);
  EXPECT_THAT(leases.TakeExpired(109), IsEmpty());
  EXPECT_THAT(leases.TakeExpired(110), ElementsAre("a"));
}

}  // namespace
}  // namespace seqpar
