// Which rank is slow, and whether it is replaced: tables, and the machine that asks.
#include "coordinator/job_machine/slow_ranks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "coordinator/job_machine/job_machine.h"
#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A gang whose ranks execute at these paces (seconds a flop); 0: it has finished nothing.
JobRecord Running(const std::vector<double>& paces) {
  JobRecord record;
  record.spec = SampleSpec();
  record.spec.config.layers = 100;
  record.stage = Stage::kRunning;
  record.attempt = 1;
  record.attempts.emplace_back().attempt = 1;
  record.plan.prediction.step_seconds = record.plan.prediction.compute_seconds = 100;
  for (const double pace : paces) {
    RankRecord rank;
    rank.node = "a";
    rank.device = static_cast<int>(record.ranks.size());
    rank.phase = JobPhase::kExecute;
    rank.state = RankState::kStarted;
    rank.flop_seconds = pace;
    record.ranks.push_back(rank);
  }
  return record;
}

TEST(SlowRanks, ThePaceIsThatOfTheLatestLayers) {
  RankRecord rank;
  EXPECT_FALSE(NoteWork(0, 0, &rank));
  EXPECT_TRUE(NoteWork(100, 2, &rank));
  EXPECT_DOUBLE_EQ(rank.flop_seconds, 0.02);
  EXPECT_FALSE(NoteWork(100, 2, &rank)) << "nothing new";
  EXPECT_TRUE(NoteWork(150, 7, &rank));
  EXPECT_DOUBLE_EQ(rank.flop_seconds, 0.1) << "whatever it was before";
  // What no rank can have done says nothing, nor is it divided by.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double flops : {nan, 1e300 * 1e300, -1.0}) {
    EXPECT_FALSE(NoteWork(flops, 8, &rank));
    EXPECT_DOUBLE_EQ(rank.flop_seconds, 0.1);
  }
}

TEST(SlowRanks, SlownessIsAgainstTheMedian) {
  struct Row {
    std::vector<double> paces, slowness;
  };
  const Row rows[] = {
      {{}, {}},
      {{0, 0}, {0, 0}},
      {{2, 0}, {1, 0}},
      {{1, 4}, {1, 4}},
      {{4, 1, 1}, {4, 1, 1}},
      {{1, 2, 3, 8}, {0.5, 1, 1.5, 4}},
      {{1, 1, 8, 8, 8}, {0.125, 0.125, 1, 1, 1}},
  };
  for (const Row& row : rows) EXPECT_EQ(SlownessOf(Running(row.paces)), row.slowness);
  JobRecord record = Running({1, 4});
  record.ranks[0].phase = JobPhase::kMerge;
  EXPECT_THAT(SlownessOf(record), ElementsAre(0, 1)) << "alone";
}

TEST(SlowRanks, SlowSoOftenInARowAndSlowestOfAll) {
  const SlowRankPolicy policy{2, 3, 2};
  JobRecord record = Running({1, 1, 1, 4, 5});
  EXPECT_FALSE(IsToReplace(policy, 4, &record));
  EXPECT_FALSE(IsToReplace(policy, 4, &record));
  record.ranks[4].flop_seconds = 1.9;
  EXPECT_FALSE(IsToReplace(policy, 4, &record)) << "well in between";
  record.ranks[4].flop_seconds = 5;
  EXPECT_FALSE(IsToReplace(policy, 4, &record));
  EXPECT_FALSE(IsToReplace(policy, 4, &record));
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(IsToReplace(policy, 3, &record)) << "another is slower";
  EXPECT_TRUE(IsToReplace(policy, 4, &record));
  EXPECT_FALSE(IsToReplace(policy, 4, &record)) << "counted anew";
  EXPECT_FALSE(IsToReplace(policy, 0, &record));
  record.avoided = {"b/0", "b/1"};
  for (int i = 0; i < 9; ++i) EXPECT_FALSE(IsToReplace(policy, 4, &record)) << "it had its replacements";
  record.avoided.clear();
  for (int i = 0; i < 9; ++i) EXPECT_FALSE(IsToReplace({}, 4, &record)) << "off";
}

struct Outlook {
  const char* what;
  double percent, pace;  // of the slow rank; the others take a second for a flop, of 100
  double begun_seconds;  // what this attempt took until its layers began
  int first_layer, checkpoint;
  OtherPlan other;
  const char* why;  // nullptr: it goes on
};

TEST(SlowRanks, OnlyWhereAnotherAttemptEndsSooner) {
  const Outlook rows[] = {
      {"most is left",
       10,
       5,
       2,
       0,
       0,
       {100, 1},
       "would take 450 s, another attempt without its device 105 s"},
      {"little is left", 90, 5, 2, 0, 0, {100, 1}, nullptr},
      {"but behind a checkpoint",
       90,
       5,
       2,
       0,
       90,
       {100, 1},
       "would take 50 s, another attempt without its device 15 s"},
      {"fewer devices", 10, 5, 2, 0, 0, {440, 1}, "would take 450 s"},
      {"too few devices", 10, 5, 2, 0, 0, {460, 1}, nullptr},
      {"a start that took long", 10, 5, 400, 0, 0, {100, 1}, nullptr},
      {"a start that will", 10, 5, 2, 0, 0, {100, 400}, nullptr},
      {"from a checkpoint on",
       60,
       5,
       2,
       50,
       50,
       {100, 1},
       "would take 200 s, another attempt without its device 55 s"},
      {"no longer slow", 10, 1.5, 2, 0, 0, {1, 0}, nullptr},
      {"nothing is known", 0, 5, 2, 0, 0, {1, 0}, nullptr},
      {"it is done", 100, 5, 2, 0, 0, {0, 0}, nullptr},
  };
  for (const Outlook& row : rows) {
    JobRecord record = Running({1, 1, row.pace});
    record.attempts.back().first_layer = row.first_layer;
    record.checkpoint_layers = row.checkpoint;
    record.attempt_begin_us = 7'000'000;
    record.execute_begin_us = record.attempt_begin_us + static_cast<int64_t>(1e6 * row.begun_seconds);
    for (RankRecord& rank : record.ranks) {
      rank.percent = row.percent;
      rank.flops = row.percent - row.first_layer;
    }
    const std::optional<std::string> why = WhyReplace(record, {2, 3, 2}, 2, row.other);
    EXPECT_EQ(why.has_value(), row.why != nullptr) << row.what;
    if (why && row.why != nullptr) {
      EXPECT_THAT(*why, HasSubstr(row.why)) << row.what;
    }
  }
}

TEST(SlowRanks, APlanIsAsMuchTooFastAsThePresentOneWas) {
  JobRecord record = Running({4, 4, 20});
  for (RankRecord& rank : record.ranks) rank.percent = rank.flops = 10;
  // 1800 s are left; another attempt of 100 predicted seconds takes four times that.
  EXPECT_THAT(*WhyReplace(record, {2, 3, 2}, 2, {100, 0}), HasSubstr("without its device 403 s"));
  record.plan.prediction.compute_seconds = 1000;
  EXPECT_THAT(*WhyReplace(record, {2, 3, 2}, 2, {100, 0}), HasSubstr("without its device 103 s"))
      << "never faster than predicted";
}

class ReplaceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.slow_ranks.factor = 2;
    record_.id = "j-1";
    record_.spec = SampleSpec();
    record_.spec.config.layers = 100;
    record_.spec.max_attempts = 1;
    Apply(event::Submitted{});
  }
  std::vector<JobAction> Apply(const JobEvent& event) {
    return Step(&record_, event, config_, {1'000'000, 1'000'000});
  }
  void Begin() {
    event::Placed placed{SamplePlan(record_.spec, 3, 3), {{1, 1}, {1, 1}, {1, 1}}};
    placed.plan.prediction.step_seconds = placed.plan.prediction.compute_seconds = 100;
    Apply(placed);
    Apply(event::StagingReady{});
    for (const int rank : {0, 1, 2}) Apply(event::RankStarted{record_.attempt, rank});
  }
  // Every rank has `layers` behind it; the last one takes `slower` times as long. The ranks that are to be
  // seen to.
  std::vector<int> Report(int layers, double slower) {
    std::vector<int> asked;
    for (const int rank : {0, 1, 2}) {
      event::RankProgressed progressed{record_.attempt, {}};
      progressed.progress.set_rank(rank);
      progressed.progress.set_phase(v1::JOB_PHASE_EXECUTE);
      progressed.progress.set_percent(layers);
      progressed.progress.mutable_totals()->set_flops(layers);
      progressed.progress.mutable_totals()->set_flops_seconds(layers * (rank == 2 ? slower : 1));
      for (const JobAction& action : Apply(progressed)) {
        if (const auto* plan = std::get_if<action::PlanWithout>(&action)) asked.push_back(plan->rank);
      }
    }
    return asked;
  }
  void Stop() {
    ASSERT_EQ(record_.stage, Stage::kStopping);
    for (const int rank : {0, 1, 2}) Apply(event::RankStopped{record_.attempt, rank});
  }

  MachineConfig config_;
  JobRecord record_;
};

TEST_F(ReplaceTest, TheAttemptEndsAndIsNoneOfMaxAttempts) {
  Begin();
  EXPECT_THAT(Report(1, 5), IsEmpty());
  EXPECT_THAT(Report(2, 5), IsEmpty());
  EXPECT_THAT(Report(3, 5), ElementsAre(2));
  Apply(event::PlannedWithout{2, 2, 1, 1});
  Apply(event::PlannedWithout{1, 2, 1000, 1});
  EXPECT_EQ(record_.stage, Stage::kRunning) << "of another attempt, and for nothing";
  Apply(event::PlannedWithout{1, 2, 100, 1});
  Stop();
  EXPECT_EQ(record_.stage, Stage::kQueued);
  EXPECT_EQ(record_.failures, 0);
  EXPECT_EQ(record_.not_before_us, 1'000'000) << "at once";
  EXPECT_THAT(record_.avoided, ElementsAre("c/0"));
  EXPECT_TRUE(record_.attempts[0].not_counted);
  EXPECT_EQ(ReasonOf(record_.attempts[0].error), reason::kSlowRank);
  EXPECT_THAT(std::string(record_.attempts[0].error.message()),
              HasSubstr("rank 2 on c/0 took 5.0 times as long"));
}

TEST_F(ReplaceTest, ItComesToAnEnd) {
  int replaced = 0;
  for (int attempt = 1; attempt <= 10 && record_.stage == Stage::kQueued; ++attempt) {
    Begin();
    for (int layers = 1; layers <= 50 && record_.stage == Stage::kRunning; ++layers) {
      for (const int rank : Report(layers, 5)) Apply(event::PlannedWithout{record_.attempt, rank, 10, 0});
    }
    if (record_.stage != Stage::kStopping) break;
    ++replaced;
    // The sample's plans never differ: where it runs next is the scheduler's to see to.
    record_.avoided.erase("c/0");
    record_.avoided.insert(absl::StrCat("c/", attempt));
    Stop();
  }
  EXPECT_EQ(replaced, config_.slow_ranks.replacements);
  EXPECT_EQ(record_.stage, Stage::kRunning);
}

TEST_F(ReplaceTest, OffItAsksNobody) {
  config_.slow_ranks.factor = 0;
  Begin();
  for (int layers = 1; layers <= 20; ++layers) EXPECT_THAT(Report(layers, 50), IsEmpty());
  Apply(event::PlannedWithout{1, 2, 1, 0});
}

}  // namespace
}  // namespace seqpar
