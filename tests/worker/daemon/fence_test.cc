#include "worker/daemon/fence.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

TEST(CommandFenceTest, ObeysWhatIsNotBelowTheHighestSeen) {
  CommandFence fence;
  EXPECT_TRUE(fence.Admit(3, "j-1", 2).ok());
  EXPECT_TRUE(fence.Admit(3, "j-1", 2).ok());
  EXPECT_TRUE(fence.Admit(3, "j-1", 3).ok());
  EXPECT_TRUE(fence.Admit(4, "j-1", 3).ok());
  EXPECT_TRUE(fence.Admit(4, "j-2", 1).ok()) << "attempts are counted by job";
}

TEST(CommandFenceTest, RefusesALowerTermAndSaysBothFigures) {
  CommandFence fence;
  ASSERT_TRUE(fence.Admit(5, "j-1", 1).ok());
  const absl::Status refused = fence.Admit(4, "j-1", 1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(refused.message(), "term 4 is over: this worker has obeyed term 5");
  EXPECT_FALSE(fence.AdmitTerm(4).ok());
  EXPECT_EQ(fence.highest_term(), 5);
}

TEST(CommandFenceTest, RefusesALowerAttemptOfTheSameJob) {
  CommandFence fence;
  ASSERT_TRUE(fence.Admit(5, "j-1", 3).ok());
  EXPECT_FALSE(fence.Admit(5, "j-1", 2).ok());
  EXPECT_FALSE(fence.Admit(6, "j-1", 2).ok()) << "a newer term does not revive an old attempt";
  EXPECT_EQ(fence.highest_term(), 5) << "a refused command leaves no trace";
}

TEST(CommandFenceTest, RemembersManyJobs) {
  CommandFence fence;
  ASSERT_TRUE(fence.Admit(1, "first", 9).ok());
  for (int i = 0; i < 99'999; ++i) ASSERT_TRUE(fence.Admit(1, std::to_string(i), 1).ok());
  EXPECT_FALSE(fence.Admit(1, "first", 8).ok());
}

TEST(CommandFence, TellsTheAttemptsOfTheJobsThatItHeardOfLast) {
  CommandFence fence;
  ASSERT_TRUE(fence.Admit(1, "a", 1).ok());
  ASSERT_TRUE(fence.Admit(1, "b", 1).ok());
  ASSERT_TRUE(fence.Admit(1, "c", 2).ok());
  ASSERT_TRUE(fence.Admit(1, "b", 3).ok());
  EXPECT_EQ(fence.LatestAttempts(2), (std::map<std::string, int32_t>{{"b", 3}, {"c", 2}}));
  EXPECT_EQ(fence.LatestAttempts(9).size(), 3u);
}

}  // namespace
}  // namespace seqpar
