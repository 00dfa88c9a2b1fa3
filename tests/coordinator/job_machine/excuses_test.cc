// Attempts that a node ends without the job's doing: they do not count, but not without end.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/engine/record_codec.h"
#include "coordinator/job_machine/job_machine.h"
#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

class ExcusesTest : public ::testing::Test {
 protected:
  // A job of one rank, to which `node` does that in every placement; the placements until the job ended. At
  // most 1000.
  int AttemptsOf(const std::function<std::string(int)>& node) {
    record_ = {};
    record_.id = "j-1";
    record_.spec = SampleSpec();
    record_.spec.output_file = "/data/out.safetensors";
    record_.spec.config.layers = 2000;
    record_.spec.max_attempts = 2;
    Apply(event::Submitted{});
    int attempt = 1;
    for (; attempt <= 1000 && !record_.ended(); ++attempt) {
      const std::string name = node(attempt);
      breaks_placements_ ? Broken(name) : Drained(name);
    }
    return attempt - 1;
  }
  // Attaches anew before anything has begun.
  void Broken(const std::string& node) {
    Plan plan = SamplePlan(record_.spec, 1, 1);
    plan.ranks[0].node = node;
    Apply(event::Placed{plan, {{1, 1}}});
    Apply(event::NodeAttached{node, 2, {}});
    Apply(event::StagingReady{});
  }
  // Drains.
  void Drained(const std::string& node) {
    const int attempt = record_.NextAttempt();
    Plan plan = SamplePlan(record_.spec, 1, 1);
    plan.ranks[0].node = node;
    Apply(event::Placed{plan, {{1, attempt}}});
    Apply(event::StagingReady{});
    Apply(event::RankStarted{attempt, 0});
    if (layers_of_ > 0) Apply(event::CheckpointKept{attempt, attempt * layers_of_});
    Apply(event::NodeDrains{node});
    Apply(event::RankFailed{attempt, 0,
                            MakeError(absl::StatusCode::kUnavailable, reason::kNodeDrained, "told to stop"),
                            true, JobPhase::kExecute});
    if (restarts_) Restart();
    Apply(event::RankStopped{attempt, 0});
  }
  void Restart() {
    StoredAttempt stored;
    stored.plan = PlanToProto(record_.plan).SerializeAsString();
    const absl::StatusOr<JobRecord> restored = RecordOf(RowOf(record_, 0), stored);
    ASSERT_TRUE(restored.ok()) << restored.status();
    record_ = *restored;
    Apply(event::Restored{});
  }
  void Apply(const JobEvent& event) { Step(&record_, event, MachineConfig(), {1'000'000, 1'000'000}); }

  JobRecord record_;
  bool breaks_placements_ = false;
  int layers_of_ = 0;      // that each attempt gets on
  bool restarts_ = false;  // the coordinator, in each of them
};

TEST_F(ExcusesTest, OfOneNodeAreTwo) {
  EXPECT_EQ(AttemptsOf([](int) { return "a"; }), 2 + 2);
  EXPECT_EQ(record_.state, JobState::kFailed);
  EXPECT_EQ(ReasonOf(record_.error), reason::kNodeDrained);
  EXPECT_TRUE(record_.attempts[1].not_counted);
  EXPECT_FALSE(record_.attempts[2].not_counted);
}

TEST_F(ExcusesTest, OfNodesThatAreDrainedInTurnAreAsManyAsThereAreNodes) {
  EXPECT_EQ(AttemptsOf([](int attempt) { return absl::StrCat("node-", attempt % 16); }), 2 * 16 + 2);
}

TEST_F(ExcusesTest, UnderANewNameEachTimeHaveAnEnd) {
  EXPECT_EQ(AttemptsOf([](int attempt) { return absl::StrCat("node-", attempt); }), 100 + 2);
}

TEST_F(ExcusesTest, OfPlacementsThatANodeBrokeAreAsMany) {
  breaks_placements_ = true;
  EXPECT_EQ(AttemptsOf([](int) { return "a"; }), 2 + 2);
  EXPECT_EQ(record_.state, JobState::kFailed);
  EXPECT_EQ(ReasonOf(record_.error), reason::kRankLost);
  EXPECT_EQ(record_.attempts.size(), 2u) << "an excused one is none";
  EXPECT_EQ(AttemptsOf([](int attempt) { return absl::StrCat("node-", attempt); }), 100 + 2);
}

TEST_F(ExcusesTest, OfPlacementsAndOfAttemptsAreCountedTogether) {
  int times = 0;
  EXPECT_EQ(AttemptsOf([&](int) {
              breaks_placements_ = ++times == 1;
              return "a";
            }),
            2 + 2);
}

TEST_F(ExcusesTest, AreRememberedByTheNextCoordinator) {
  restarts_ = true;
  EXPECT_EQ(AttemptsOf([](int) { return "a"; }), 2 + 2);
}

TEST_F(ExcusesTest, BeginAnewWithEachCheckpoint) {
  layers_of_ = 1;
  EXPECT_EQ(AttemptsOf([](int) { return "a"; }), 1000);
  EXPECT_FALSE(record_.ended()) << "it gets on, whatever its node does";
}

}  // namespace
}  // namespace seqpar
