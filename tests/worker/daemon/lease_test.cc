#include "worker/daemon/lease.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

TEST(WorkerLeaseTest, IsOverBeforeItIsGranted) {
  const WorkerLease lease;
  EXPECT_TRUE(lease.Over(1));
}

TEST(WorkerLeaseTest, CountsFromSendingTheHelloAndEndsASecondEarlier) {
  WorkerLease lease;
  lease.Grant(6000, 10'000'000);
  EXPECT_EQ(lease.deadline_us(), 15'000'000);
  EXPECT_FALSE(lease.Over(14'999'999));
  EXPECT_TRUE(lease.Over(15'000'000));
}

TEST(WorkerLeaseTest, CountsFromSendingTheHeartbeatNotFromItsAnswer) {
  WorkerLease lease;
  lease.Grant(6000, 0);
  lease.HeartbeatSent(1, 2'000'000);
  lease.HeartbeatSent(2, 3'000'000);
  EXPECT_TRUE(lease.HeartbeatAnswered(1));  // whenever that is
  EXPECT_EQ(lease.deadline_us(), 7'000'000);
  EXPECT_TRUE(lease.HeartbeatAnswered(2));
  EXPECT_EQ(lease.deadline_us(), 8'000'000);
}

TEST(WorkerLeaseTest, AnAnswerCountsOnceAndAnUnknownOneNever) {
  WorkerLease lease;
  lease.Grant(6000, 0);
  lease.HeartbeatSent(1, 2'000'000);
  lease.HeartbeatSent(2, 3'000'000);
  EXPECT_TRUE(lease.HeartbeatAnswered(2));
  EXPECT_FALSE(lease.HeartbeatAnswered(2));
  EXPECT_FALSE(lease.HeartbeatAnswered(1)) << "an answer to a later one has come";
  EXPECT_FALSE(lease.HeartbeatAnswered(99));
  EXPECT_EQ(lease.deadline_us(), 8'000'000);
}

TEST(WorkerLeaseTest, AnswersToHeartbeatsOfABrokenStreamCountForNothing) {
  WorkerLease lease;
  lease.Grant(6000, 0);
  lease.HeartbeatSent(1, 50'000'000);
  lease.Grant(6000, 10'000'000);
  EXPECT_FALSE(lease.HeartbeatAnswered(1));
  EXPECT_EQ(lease.deadline_us(), 15'000'000);
}

TEST(WorkerLeaseTest, AShortLeaseKeepsHalfOfItself) {
  WorkerLease lease;
  lease.Grant(1000, 0);
  EXPECT_EQ(lease.deadline_us(), 500'000);
}

}  // namespace
}  // namespace seqpar
