#include "coordinator/engine/record_codec.h"

#include <gtest/gtest.h>

#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

constexpr int64_t kSecond = 1'000'000;

// Two ranks in the execute phase since `begin`; the slower one is a quarter through, which it was at 30 s.
JobRecord Executing() {
  JobRecord record;
  record.spec = SampleSpec();
  record.id = "j-1";
  record.state = JobState::kRunning;
  record.phase = JobPhase::kExecute;
  record.execute_begin_us = 10 * kSecond;
  record.percent_us = 30 * kSecond;
  record.ranks.resize(2);
  record.ranks[0].percent = 50;
  record.ranks[0].layer = 2;
  record.ranks[0].step = 900;
  record.ranks[1].percent = 25;
  record.ranks[1].layer = 1;
  record.ranks[1].step = 700;
  record.ranks[1].pass = "forward";
  return record;
}

TEST(ViewOf, ProgressIsThatOfTheSlowestRank) {
  const v1::Progress progress = ViewOf(Executing(), 30 * kSecond).progress();
  EXPECT_EQ(progress.layer(), 1);
  EXPECT_EQ(progress.layers(), 2);
  EXPECT_EQ(progress.pass(), "forward");
  EXPECT_EQ(progress.step(), 700);
  EXPECT_EQ(progress.percent(), 25);
}

TEST(ViewOf, TimeLeftRunsDownBetweenTwoLayers) {
  const JobRecord record = Executing();
  const auto left = [&](int64_t now_us) { return ViewOf(record, now_us).progress().seconds_left(); };
  EXPECT_DOUBLE_EQ(left(30 * kSecond), 60);  // 20 s were a quarter
  EXPECT_DOUBLE_EQ(left(45 * kSecond), 45);
  EXPECT_DOUBLE_EQ(left(200 * kSecond), 0);  // not known: the rest takes longer than the first quarter said
}

TEST(ViewOf, TimeLeftIsNotKnownBeforeTheFirstPercent) {
  JobRecord record = Executing();
  record.ranks[1].percent = 0;
  EXPECT_EQ(ViewOf(record, 30 * kSecond).progress().seconds_left(), 0);
  record = Executing();
  record.execute_begin_us = 0;
  EXPECT_EQ(ViewOf(record, 30 * kSecond).progress().seconds_left(), 0);
}

}  // namespace
}  // namespace seqpar
