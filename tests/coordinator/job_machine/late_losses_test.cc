// Ranks that have finished and are then lost, while their job ends: it matters where its end goes wrong.
#include <gtest/gtest.h>

#include <functional>

#include "common/base/status.h"
#include "coordinator/job_machine/job_machine.h"
#include "tests/coordinator/job_machine/samples.h"

namespace seqpar {
namespace {

class LateLossesTest : public ::testing::Test {
 protected:
  // Two ranks on two nodes have finished; the output is being synced.
  void Merge() {
    record_ = {};
    record_.id = "j-1";
    record_.spec = SampleSpec();
    record_.spec.output_file = "/data/out.safetensors";
    Apply(event::Submitted{});
    Apply(event::Placed{SamplePlan(record_.spec, 2, 2), {{1, 1}, {1, 1}}});
    Apply(event::StagingReady{});
    for (const int rank : {0, 1}) {
      Apply(event::RankStarted{1, rank});
      Apply(event::RankFinished{1, rank, SampleResult(rank)});
    }
    ASSERT_EQ(record_.stage, Stage::kMerging);
  }
  void Apply(const JobEvent& event) { Step(&record_, event, MachineConfig(), {1'000'000, 1'000'000}); }
  static absl::Status Broken() {
    return MakeError(absl::StatusCode::kInternal, reason::kStorage, "input/output error");
  }

  JobRecord record_;
};

// How a node can go so that nobody answers for its ranks any more.
const std::function<JobEvent(const char*)> kLosses[] = {
    [](const char* node) { return event::NodeLost{node}; },
    [](const char* node) {
      return event::NodeAttached{node, 2, {}};
    },  // started anew
    [](const char* node) {
      return event::RankStopped{1, *node - 'a'};
    },
};

TEST_F(LateLossesTest, AMergeThatFailsThenWaitsForNobody) {
  for (const auto& loss : kLosses) {
    Merge();
    Apply(loss("a"));
    Apply(loss("b"));
    EXPECT_EQ(record_.stage, Stage::kMerging) << "their part is done";
    Apply(event::Merged{Broken()});
    EXPECT_EQ(record_.stage, Stage::kQueued) << "for another attempt";
  }
}

TEST_F(LateLossesTest, ACommitThatFailsThenWaitsForNobody) {
  for (const auto& loss : kLosses) {
    Merge();
    Apply(event::Merged{});
    Apply(loss("a"));
    Apply(loss("b"));
    Apply(event::Committed{Broken()});
    EXPECT_EQ(record_.stage, Stage::kQueued);
  }
}

TEST_F(LateLossesTest, ACancelThenWaitsForNobody) {
  for (const auto& loss : kLosses) {
    Merge();
    Apply(loss("a"));
    Apply(loss("b"));
    Apply(event::CancelRequested{});
    EXPECT_EQ(record_.state, JobState::kCancelled);
  }
}

TEST_F(LateLossesTest, TheOtherNodeIsStillWaitedFor) {
  Merge();
  Apply(event::NodeLost{"a"});
  Apply(event::CancelRequested{});
  EXPECT_EQ(record_.stage, Stage::kStopping);
  Apply(event::RankStopped{1, 1});
  EXPECT_EQ(record_.state, JobState::kCancelled);
}

TEST_F(LateLossesTest, NothingIsLostWhereTheEndGoesRight) {
  for (const auto& loss : kLosses) {
    Merge();
    Apply(loss("a"));
    Apply(event::Merged{absl::OkStatus(), 4711});
    EXPECT_EQ(record_.staged_inode, 4711) << "which may be renamed after a restart too";
    Apply(loss("b"));
    Apply(event::Committed{});
    Apply(event::Reported{});
    EXPECT_EQ(record_.state, JobState::kSucceeded);
    EXPECT_EQ(record_.attempts.size(), 1u);
  }
}

}  // namespace
}  // namespace seqpar
