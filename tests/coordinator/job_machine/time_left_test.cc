// The time that is left of an attempt: told by its own pace.
#include <gtest/gtest.h>

#include "coordinator/engine/record_codec.h"
#include "coordinator/job_machine/job_machine.h"
#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

constexpr int64_t kSecond = 1'000'000;

class TimeLeftTest : public ::testing::Test {
 protected:
  // A job of ten layers and two ranks that run its first attempt, at 100 s.
  void Run() {
    record_.spec.config.layers = 10;
    record_.id = "j-1";
    Apply(event::Submitted{});
    Apply(event::Placed{SamplePlan(record_.spec, 2, 1), {{1, 1}, {1, 1}}});
    Apply(event::StagingReady{});
    for (int rank = 0; rank < 2; ++rank) Apply(event::RankStarted{1, rank});
    ASSERT_EQ(record_.stage, Stage::kRunning);
  }
  void Apply(const JobEvent& event) { Step(&record_, event, config_, now_); }
  void Progress(int rank, double percent) {
    v1::RankProgress progress;
    progress.set_rank(rank);
    progress.set_phase(v1::JOB_PHASE_EXECUTE);
    progress.set_percent(percent);
    Apply(event::RankProgressed{record_.attempt, progress});
  }
  // What both ranks have done at a time; what is left then.
  double LeftAt(int64_t seconds, double percent) {
    now_.boot_us = seconds * kSecond;
    for (int rank = 0; rank < 2; ++rank) Progress(rank, percent);
    return ViewOf(record_, now_.boot_us).progress().seconds_left();
  }

  const MachineConfig config_{};
  Now now_{100 * kSecond, 100 * kSecond};
  JobRecord record_{.spec = SampleSpec()};
};

TEST_F(TimeLeftTest, OfAFirstAttemptFollowsFromAllThatIsDone) {
  Run();
  EXPECT_EQ(LeftAt(110, 0), 0);
  EXPECT_DOUBLE_EQ(LeftAt(130, 20), 80);
}

TEST_F(TimeLeftTest, OfOneThatGoesOnFromACheckpointFollowsFromItsOwnLayers) {
  record_.checkpoint_layers = 8;
  record_.checkpoint_attempt = 1;
  Run();
  EXPECT_EQ(LeftAt(110, 80), 0);
  EXPECT_DOUBLE_EQ(LeftAt(120, 85), 30) << "5 % took 10 s";
}

TEST_F(TimeLeftTest, AfterARestartFollowsFromWhatIsHeardSince) {
  Run();
  LeftAt(110, 0);
  LeftAt(170, 60);
  for (RankRecord& rank : record_.ranks) rank.percent = 0;  // it is not stored
  now_.boot_us = 171 * kSecond;
  Apply(event::Restored{});
  now_.boot_us = 172 * kSecond;
  Progress(0, 62);
  EXPECT_EQ(ViewOf(record_, now_.boot_us).progress().seconds_left(), 0);
  EXPECT_EQ(LeftAt(173, 63), 0);
  EXPECT_DOUBLE_EQ(LeftAt(183, 73), 27) << "10 % took 10 s";
}

}  // namespace
}  // namespace seqpar
