// A rank that stays slow, through the API: its job goes on elsewhere, at most twice, and takes nobody's turn.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "tests/coordinator/api/coordinator_fixture.h"

namespace seqpar {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class SlowRanksTest : public CoordinatorTest {
 protected:
  void Configure(CoordinatorConfig* config) override { config->engine.machine.slow_ranks.factor = 3; }

  // The ranks of attempt `attempt` go on, the second at a thousandth of the first one's pace, for as many
  // reports as it takes to be slow, and more.
  void Crawl(FakeWorker* worker, int reports) {
    const v1::GangId gang = worker->gang();
    for (int i = 1; i <= reports; ++i) {
      worker->Work(++sequence_, gang, i, {1, 1000});
      ASSERT_TRUE(worker->WaitHeartbeatAnswer(sequence_));
    }
  }
  static absl::Status ErrorOf(const v1::AttemptInfo& attempt) { return StatusFromProto(attempt.error()); }

  int64_t sequence_ = 0;
};

TEST_F(SlowRanksTest, TheJobGoesOnWithoutItsDevice) {
  auto worker = Worker({.devices = 3, .hold = true});
  const v1::Job created = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  Crawl(worker.get(), 3);
  ASSERT_TRUE(worker->WaitTables(2));
  EXPECT_EQ(worker->gang().attempt(), 2);
  worker->FinishAll(worker->gang(), {0, 1});
  const v1::Job done = WaitEnded(created.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  ASSERT_EQ(done.attempts_size(), 2);
  const v1::AttemptInfo& first = done.attempts(0);
  EXPECT_EQ(ReasonOf(ErrorOf(first)), reason::kSlowRank);
  EXPECT_THAT(std::string(ErrorOf(first).message()), HasSubstr(absl::StrCat("rank 1 on ", first.devices(1))));
  EXPECT_TRUE(first.not_counted());
  EXPECT_THAT(done.attempts(1).devices(), Not(Contains(first.devices(1))));
}

TEST_F(SlowRanksTest, AfterTwoReplacementsItStaysWhereItIs) {
  auto worker = Worker({.devices = 6, .hold = true});
  const v1::Job created = Create(Job());
  for (int attempt = 1; attempt <= 3; ++attempt) {
    ASSERT_TRUE(worker->WaitTables(attempt));
    Crawl(worker.get(), attempt < 3 ? 3 : 50);
  }
  EXPECT_EQ(Get(created.id()).attempt(), 3);
  worker->FinishAll(worker->gang(), {0, 1});
  EXPECT_EQ(WaitEnded(created.id()).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(SlowRanksTest, ItStaysUntilThereIsAnotherDevice) {
  auto worker = Worker({.devices = 2, .hold = true});
  const v1::Job created = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  Crawl(worker.get(), 9);
  EXPECT_EQ(Get(created.id()).attempt(), 1);
  auto other = Worker({.node = "b", .devices = 2, .hold = true});
  while (Get(created.id()).attempts(0).error().code() == 0) Crawl(worker.get(), 3);
  ASSERT_TRUE(other->WaitTables(1));
  const v1::Job moved = Get(created.id());
  EXPECT_EQ(moved.attempt(), 2);
  EXPECT_THAT(moved.attempts(1).devices(), Not(Contains(moved.attempts(0).devices(1))));
}

TEST_F(SlowRanksTest, ItsDevicesAreNotGivenUpToWhoComesBeforeIt) {
  auto worker = Worker({.devices = 3, .hold = true});
  const v1::Job created = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  v1::Job large = Job();
  large.set_priority(1);
  large.mutable_workers()->set_min(3);
  large.mutable_workers()->set_max(3);
  const v1::Job before = Create(large);
  WaitReason(before.id(), "to become free");
  Crawl(worker.get(), 30);
  EXPECT_EQ(Get(created.id()).attempt(), 1);
  Cancel(before.id());
  Crawl(worker.get(), 60);
  ASSERT_TRUE(worker->WaitTables(2));
  EXPECT_EQ(worker->gang().attempt(), 2);
}

}  // namespace
}  // namespace seqpar
