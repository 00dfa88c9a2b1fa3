// Numbers from clients and workers that nobody means: the machine keeps its head.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/engine/record_codec.h"
#include "coordinator/job_machine/job_machine.h"
#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class NumbersTest : public ::testing::Test {
 protected:
  // A job of one rank that runs.
  void Run() {
    record_.id = "j-1";
    record_.create_us = now_.wall_us;
    Apply(event::Submitted{});
    Apply(event::Placed{SamplePlan(record_.spec, 1, 1), {{1, 1}}});
    Apply(event::StagingReady{});
    Apply(event::RankStarted{1, 0});
    ASSERT_EQ(record_.stage, Stage::kRunning);
  }
  void Apply(const JobEvent& event) { Step(&record_, event, config_, now_); }
  void Progress(int phase, double percent) {
    v1::RankProgress progress;
    progress.set_phase(static_cast<v1::JobPhase>(phase));
    progress.set_percent(percent);
    Apply(event::RankProgressed{1, progress});
  }
  double Percent() const { return ViewOf(record_, now_.boot_us).progress().percent(); }

  const MachineConfig config_{};
  Now now_{1'000'000, 1'000'000};
  JobRecord record_{.spec = SampleSpec()};
};

TEST_F(NumbersTest, APhaseThatNobodyKnowsIsTheOneBefore) {
  Run();
  Progress(v1::JOB_PHASE_SHARD, 0);
  for (const int phase : {77, -5, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    Progress(phase, 0);
    EXPECT_EQ(record_.ranks[0].phase, JobPhase::kShard) << phase;
  }
}

TEST_F(NumbersTest, ProgressIsWithinAHundredPercent) {
  Run();
  Progress(v1::JOB_PHASE_EXECUTE, 40);
  for (const double wild : {kNan, kInfinity, -kInfinity}) {
    Progress(v1::JOB_PHASE_EXECUTE, wild);
    EXPECT_EQ(Percent(), 40) << wild;
  }
  Progress(v1::JOB_PHASE_EXECUTE, 1e9);
  EXPECT_EQ(Percent(), 100);
  Progress(v1::JOB_PHASE_EXECUTE, -7);
  EXPECT_EQ(Percent(), 0);
}

TEST_F(NumbersTest, ADeadlineAfterTheEndOfTimeIsNotOver) {
  record_.spec.deadline_seconds = 1e300;
  Run();
  Apply(event::Tick{});
  EXPECT_EQ(record_.stage, Stage::kRunning);
  EXPECT_GT(DeadlineUs(record_), now_.wall_us);
}

TEST_F(NumbersTest, ALayerThatTakesForEverIsWaitedForThatLong) {
  for (const double seconds : {1e300, kInfinity}) {
    record_ = {.spec = SampleSpec()};
    Run();
    record_.plan.prediction.step_seconds = seconds;
    Progress(v1::JOB_PHASE_EXECUTE, 1);
    now_.boot_us += int64_t{1000} * 1'000'000;
    Apply(event::Tick{});
    EXPECT_EQ(record_.stage, Stage::kRunning) << seconds;
  }
}

TEST_F(NumbersTest, ACheckpointIsBehindALayerOfTheJob) {
  record_.spec.config.layers = 4;
  Run();
  for (const int layers : {std::numeric_limits<int>::min(), -1, 0, 4, 5, std::numeric_limits<int>::max()}) {
    EXPECT_TRUE(Step(&record_, event::RankCheckpointed{1, 0, layers}, config_, now_).empty()) << layers;
  }
  EXPECT_TRUE(record_.ranks[0].checkpointed.empty());
  const std::vector<JobAction> actions = Step(&record_, event::RankCheckpointed{1, 0, 3}, config_, now_);
  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(std::get<action::KeepCheckpoint>(actions[0]).layers, 3);
}

TEST_F(NumbersTest, GroupsWithoutEndAreNotKept) {
  Run();
  for (int i = 0; i < 1000; ++i) Apply(event::BlobArrived{1, 0, absl::StrCat("group ", i), "blob"});
  EXPECT_LE(record_.blobs.size(), 64u);
  Apply(event::BlobArrived{1, 0, "group 0", "another"});
  EXPECT_EQ(record_.blobs.at("group 0").at(0), "another") << "of those that are known";
}

}  // namespace
}  // namespace seqpar
