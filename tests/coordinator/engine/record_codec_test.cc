#include "coordinator/engine/record_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "common/job/proto.h"
#include "coordinator/store/stored.pb.h"
#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000;

// Two ranks in the execute phase since `begin`; the slower one is a quarter through, which it was at 30 s.
JobRecord Executing() {
  JobRecord record;
  record.spec = SampleSpec();
  record.id = "j-1";
  record.state = JobState::kRunning;
  record.phase = JobPhase::kExecute;
  record.execute_begin_us = record.pace_begin_us = 10 * kSecond;
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
  record.pace_begin_us = 0;
  EXPECT_EQ(ViewOf(record, 30 * kSecond).progress().seconds_left(), 0);
}

TEST(ViewOf, TimeLeftFollowsFromWhatTheAttemptItselfDid) {
  JobRecord record = Executing();
  record.pace_begin_percent = 20;  // of an earlier one, from whose checkpoint it goes on
  EXPECT_DOUBLE_EQ(ViewOf(record, 30 * kSecond).progress().seconds_left(), 300);  // 20 s were a twentieth
  record.pace_begin_percent = 24.5;
  EXPECT_EQ(ViewOf(record, 30 * kSecond).progress().seconds_left(), 0);
}

TEST(RecordOf, DevicesThatWereSlowAreStillAvoided) {
  JobRecord record = Executing();
  record.stage = Stage::kQueued;
  record.avoided = {"a/1", "b/0"};
  const absl::StatusOr<JobRecord> restored = RecordOf(RowOf(record, 0), {});
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->avoided, record.avoided);
}

TEST(RecordOf, TheFileThatGetsTheOutputsNameIsKnownAgain) {
  JobRecord record = Executing();
  record.stage = Stage::kQueued;
  record.staged_inode = 4711;
  const absl::StatusOr<JobRecord> restored = RecordOf(RowOf(record, 0), {});
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(restored->staged_inode, 4711);
}

// A record that runs, as the store has it.
JobRow StoredRow(const std::function<void(stored::Job*)>& change = [](stored::Job*) {}) {
  JobRecord record = Executing();
  record.plan = SamplePlan(record.spec, 2, 1);
  record.stage = Stage::kRunning;
  record.attempt = 1;
  record.attempts.resize(1);
  record.attempts[0].attempt = 1;
  JobRow row = RowOf(record, 0);
  stored::Job body;
  EXPECT_TRUE(body.ParseFromString(row.body));
  change(&body);
  row.body = body.SerializeAsString();
  return row;
}

StoredAttempt StoredPlan() {
  StoredAttempt attempt;
  attempt.plan = PlanToProto(SamplePlan(SampleSpec(), 2, 1)).SerializeAsString();
  return attempt;
}

TEST(RecordOf, TakesUpWhatWasWritten) {
  const absl::StatusOr<JobRecord> record = RecordOf(StoredRow(), StoredPlan());
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->stage, Stage::kRunning);
  EXPECT_EQ(record->ranks.size(), 2u);
}

TEST(RecordOf, RefusesWhatTheMachineCannotGoOnFrom) {
  const auto told = [](const std::function<void(stored::Job*)>& change) {
    return std::string(RecordOf(StoredRow(change), StoredPlan()).status().message());
  };
  EXPECT_THAT(told([](stored::Job* job) { job->set_stage(99); }), HasSubstr("the stage of j-1"));
  EXPECT_THAT(told([](stored::Job* job) { job->mutable_ranks(1)->set_state(-1); }),
              HasSubstr("a rank of j-1"));
  EXPECT_THAT(told([](stored::Job* job) { job->mutable_ranks()->RemoveLast(); }),
              HasSubstr("the ranks of j-1"));
  EXPECT_THAT(told([](stored::Job* job) { job->set_failures(-3); }), HasSubstr("the attempts of j-1"));
  EXPECT_THAT(told([](stored::Job* job) { job->set_attempt_floor(std::numeric_limits<int>::max()); }),
              HasSubstr("the attempts of j-1"));
  EXPECT_THAT(told([](stored::Job* job) { (*job->mutable_excuses())["a"] = -1; }),
              HasSubstr("the attempts of j-1"));
  EXPECT_THAT(told([](stored::Job* job) { job->mutable_view()->mutable_mask()->add_documents(7); }),
              HasSubstr("the mask of j-1"));
  EXPECT_THAT(told([](stored::Job* job) {
                job->mutable_view()->mutable_input()->set_batch(std::numeric_limits<int64_t>::max());
              }),
              HasSubstr("the input of j-1"));
  EXPECT_THAT(told([](stored::Job* job) { job->mutable_view()->clear_attempts(); }),
              HasSubstr("the attempts of j-1"));
}

}  // namespace
}  // namespace seqpar
