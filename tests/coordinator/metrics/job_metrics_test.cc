// The job machine's own steps, seen by the metrics.
#include "coordinator/metrics/job_metrics.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "coordinator/job_machine/job_machine.h"
#include "tests/coordinator/job_machine/samples.h"
#include "tests/support/scrape.h"

namespace seqpar {
namespace {

constexpr int64_t kSecond = 1'000'000;

class JobMetricsTest : public ::testing::Test {
 protected:
  JobRecord Submit(const std::string& id, int max_attempts = 1) {
    JobRecord record;
    record.id = id;
    record.spec = SampleSpec();
    record.spec.max_attempts = max_attempts;
    Step(&record, event::Submitted{}, config_, Time());
    metrics_.JobSubmitted(record);
    return record;
  }

  void Do(JobRecord* record, const JobEvent& event) {
    Step(record, event, config_, Time());
    metrics_.JobStepped(*record, event);
  }

  void Place(JobRecord* record) {
    event::Placed placed;
    placed.plan = SamplePlan(record->spec, 2, 1);
    placed.devices = {{1, 7}, {1, 7}};
    Do(record, placed);
    Do(record, event::StagingReady{absl::OkStatus()});
  }

  void Progress(JobRecord* record, int rank, double flops, double seconds) {
    event::RankProgressed progressed;
    progressed.attempt = record->attempt;
    progressed.progress.set_rank(rank);
    progressed.progress.set_phase(v1::JOB_PHASE_EXECUTE);
    progressed.progress.mutable_totals()->set_flops(flops);
    progressed.progress.mutable_totals()->set_flops_seconds(seconds);
    Do(record, progressed);
  }

  void Finish(JobRecord* record, int rank) {
    v1::RankEvent result = SampleResult(rank);
    Do(record, event::RankFinished{record->attempt, rank, result});
  }

  double Value(const std::string& series) { return All().count(series) == 0 ? -1 : All().at(series); }
  std::map<std::string, double> All() { return SeriesOf(registry_.Scrape()); }
  Now Time() const { return {clock_.BootMicros(), clock_.WallMicros()}; }

  FakeClock clock_;
  MachineConfig config_;
  MetricRegistry registry_{MetricProcess::kCoordinator};
  JobMetrics metrics_{&registry_, &clock_};
};

TEST_F(JobMetricsTest, AJobIsCountedWhereItStandsFromSubmitToEnd) {
  EXPECT_EQ(Value(R"(seqpar_jobs{phase="plan",state="PENDING"})"), 0);
  JobRecord record = Submit("j-1");
  EXPECT_EQ(Value("seqpar_jobs_submitted_total"), 1);
  EXPECT_EQ(Value(R"(seqpar_jobs{phase="plan",state="PENDING"})"), 1);
  clock_.AdvanceMicros(3 * kSecond);
  EXPECT_EQ(Value("seqpar_job_queue_oldest_seconds"), 3);
  Place(&record);
  EXPECT_EQ(Value("seqpar_job_queue_oldest_seconds"), 0);
  EXPECT_EQ(Value("seqpar_job_queue_wait_seconds_sum"), 3);
  EXPECT_EQ(Value(R"(seqpar_job_phase_seconds_sum{phase="plan"})"), 3);
  EXPECT_EQ(Value(R"(seqpar_jobs{phase="plan",state="PENDING"})"), 0);
  EXPECT_EQ(Value(R"(seqpar_jobs{phase="bootstrap",state="RUNNING"})"), 1);
  EXPECT_EQ(Value("seqpar_attempts_total"), 1);
  Progress(&record, 0, 0, 0);
  Progress(&record, 1, 0, 0);
  EXPECT_EQ(Value(R"(seqpar_jobs{phase="execute",state="RUNNING"})"), 1);
  Finish(&record, 0);
  Finish(&record, 1);
  Do(&record, event::Merged{absl::OkStatus()});
  Do(&record, event::Committed{absl::OkStatus()});
  Do(&record, event::Reported{});
  ASSERT_EQ(record.state, JobState::kSucceeded);
  EXPECT_EQ(Value(R"(seqpar_jobs_ended_total{state="SUCCEEDED"})"), 1);
  for (const auto& [series, value] : All()) {
    if (series.rfind("seqpar_jobs{", 0) == 0) {
      EXPECT_EQ(value, 0) << series;
    }
  }
  // Ranks took 1 and 1.5 s where 1 was predicted, 0.5 s of it kernels; 900 bytes where 1000 were.
  EXPECT_DOUBLE_EQ(Value(R"(seqpar_predicted_over_measured_ratio_sum{quantity="time",strategy="ring"})"),
                   1 / 1.5);
  EXPECT_DOUBLE_EQ(Value(R"(seqpar_predicted_over_measured_ratio_sum{quantity="memory",strategy="ring"})"),
                   1000.0 / 900);
  EXPECT_EQ(Value(R"(seqpar_rank_imbalance_ratio_sum{strategy="ring"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_step_skew_seconds_sum{strategy="ring"})"), 0.5);
  EXPECT_EQ(Value(R"(seqpar_step_skew_seconds_count{strategy="ulysses"})"), 0);
}

TEST_F(JobMetricsTest, FailuresAreCountedByTheirFirstCause) {
  JobRecord record = Submit("j-1", 2);
  Place(&record);
  const absl::Status lost = MakeError(absl::StatusCode::kUnavailable, reason::kRankLost, "gone");
  Do(&record, event::RankFailed{1, 0, lost, true, JobPhase::kExecute});
  Do(&record, event::RankStopped{1, 0});
  Do(&record, event::RankStopped{1, 1});
  ASSERT_EQ(record.stage, Stage::kQueued);
  EXPECT_EQ(Value(R"(seqpar_attempt_failures_total{reason="RANK_LOST"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_jobs{phase="plan",state="PENDING"})"), 1);
  clock_.AdvanceMicros(2 * kSecond);
  EXPECT_EQ(Value("seqpar_job_queue_oldest_seconds"), 2) << "from the end of the attempt before";
  Place(&record);
  EXPECT_EQ(Value("seqpar_attempts_total"), 2);
  // An error of ours that has no reason.
  Do(&record, event::RankFailed{2, 1, absl::UnknownError("?"), true, JobPhase::kExecute});
  Do(&record, event::RankStopped{2, 0});
  Do(&record, event::RankStopped{2, 1});
  ASSERT_EQ(record.state, JobState::kFailed);
  EXPECT_EQ(Value(R"(seqpar_attempt_failures_total{reason="INTERNAL"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_jobs_ended_total{state="FAILED"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_predicted_over_measured_ratio_count{quantity="time",strategy="ring"})"), 0);
}

TEST_F(JobMetricsTest, ACancelledAttemptIsNoFailure) {
  JobRecord record = Submit("j-1");
  Place(&record);
  Do(&record, event::CancelRequested{});
  Do(&record, event::RankStopped{1, 0});
  Do(&record, event::RankStopped{1, 1});
  ASSERT_EQ(record.state, JobState::kCancelled);
  EXPECT_EQ(Value(R"(seqpar_jobs_ended_total{state="CANCELLED"})"), 1);
  for (const auto& [series, value] : All()) {
    if (series.rfind("seqpar_attempt_failures_total", 0) == 0) {
      EXPECT_EQ(value, 0) << series;
    }
  }
}

TEST_F(JobMetricsTest, ADrainedAttemptIsNoFailure) {
  JobRecord record = Submit("j-1");
  Place(&record);
  const absl::Status drained =
      MakeError(absl::StatusCode::kUnavailable, reason::kNodeDrained, "told to stop");
  Do(&record, event::NodeDrains{"a"});
  Do(&record, event::RankFailed{1, 0, drained, true, JobPhase::kExecute});
  Do(&record, event::RankStopped{1, 0});
  Do(&record, event::RankStopped{1, 1});
  ASSERT_EQ(record.stage, Stage::kQueued) << "it is tried again";
  for (const auto& [series, value] : All()) {
    if (series.rfind("seqpar_attempt_failures_total", 0) == 0) {
      EXPECT_EQ(value, 0) << series;
    }
  }
}

TEST_F(JobMetricsTest, AnAttemptThatEndedForASlowRankIsCountedApart) {
  config_.slow_ranks.factor = 2;
  JobRecord record = Submit("j-1");
  Place(&record);
  EXPECT_EQ(Value("seqpar_slow_ranks_replaced_total"), 0);
  for (const int rank : {0, 1}) {
    Do(&record, event::RankStarted{1, rank});
    Progress(&record, rank, 1, rank == 0 ? 1 : 1000);
    record.ranks[rank].percent = 1;
  }
  Do(&record, event::PlannedWithout{1, 1, 1, 0});
  ASSERT_EQ(record.stage, Stage::kStopping);
  Do(&record, event::RankStopped{1, 0});
  EXPECT_EQ(Value("seqpar_slow_ranks_replaced_total"), 0) << "it is stopping";
  Do(&record, event::RankStopped{1, 1});
  EXPECT_EQ(Value("seqpar_slow_ranks_replaced_total"), 1);
  for (const auto& [series, value] : All()) {
    if (series.rfind("seqpar_attempt_failures_total", 0) == 0) {
      EXPECT_EQ(value, 0) << series;
    }
  }
}

TEST_F(JobMetricsTest, AFailureIsOneWhateverItsWorkerCallsIt) {
  JobRecord record = Submit("j-1", 3);
  for (const char* reason : {reason::kSlowRank, reason::kNodeDrained}) {
    Place(&record);
    const absl::Status error = MakeError(absl::StatusCode::kUnavailable, reason, "not my fault");
    Do(&record, event::RankFailed{record.attempt, 0, error, true, JobPhase::kExecute});
    for (const int rank : {0, 1}) Do(&record, event::RankStopped{record.attempt, rank});
    ASSERT_EQ(record.stage, Stage::kQueued);
  }
  EXPECT_EQ(Value("seqpar_slow_ranks_replaced_total"), 0);
  double failures = 0;
  for (const auto& [series, value] : All()) {
    if (series.rfind("seqpar_attempt_failures_total", 0) == 0) failures += value;
  }
  EXPECT_EQ(failures, 2);
}

TEST_F(JobMetricsTest, LinksAreCountedByOutcome) {
  metrics_.LinkEnded({"cpu", "a", "b"}, LinkOutcome::kMeasured);
  metrics_.LinkEnded({"cpu", "a", "b"}, LinkOutcome::kInterrupted);
  metrics_.LinkEnded({"cpu", "a", "c"}, LinkOutcome::kInterrupted);
  EXPECT_EQ(Value("seqpar_link_measurements_total{outcome=\"measured\"}"), 1);
  EXPECT_EQ(Value("seqpar_link_measurements_total{outcome=\"interrupted\"}"), 2);
  EXPECT_EQ(Value("seqpar_link_measurements_total{outcome=\"failed\"}"), 0);
}

TEST_F(JobMetricsTest, AJobTakenUpAgainIsNeitherSubmittedNorFailedAgain) {
  JobRecord record;
  record.id = "j-1";
  record.spec = SampleSpec();
  record.state = JobState::kRunning;
  record.phase = JobPhase::kExecute;
  record.attempt = 2;
  record.attempts = {{1, 1, 2, "", {}, absl::InternalError("before"), {}},
                     {2, 3, 0, "", {}, absl::OkStatus(), {}}};
  record.stage = Stage::kReporting;
  metrics_.JobStepped(record, event::Tick{});
  EXPECT_EQ(Value("seqpar_jobs_submitted_total"), 0);
  EXPECT_EQ(Value("seqpar_attempts_total"), 0);
  EXPECT_EQ(Value(R"(seqpar_attempt_failures_total{reason="INTERNAL"})"), 0);
  EXPECT_EQ(Value(R"(seqpar_jobs{phase="execute",state="RUNNING"})"), 1);
}

TEST_F(JobMetricsTest, ASlowRankStandsOutAndGoesWithItsAttempt) {
  JobRecord record = Submit("j-1");
  Place(&record);
  EXPECT_EQ(Value(R"(seqpar_rank_slowness_ratio{device="0",node="a"})"), -1) << "nothing is done yet";
  Progress(&record, 1, 100, 3);
  Progress(&record, 0, 100, 1);
  EXPECT_DOUBLE_EQ(Value(R"(seqpar_rank_slowness_ratio{device="0",node="a"})"), 1);
  EXPECT_DOUBLE_EQ(Value(R"(seqpar_rank_slowness_ratio{device="1",node="a"})"), 3);
  // Twice the work in twice the time is not slow, whatever was before.
  Progress(&record, 1, 300, 5);
  Progress(&record, 0, 200, 2);
  EXPECT_DOUBLE_EQ(Value(R"(seqpar_rank_slowness_ratio{device="1",node="a"})"), 1);
  Do(&record, event::CancelRequested{});
  EXPECT_EQ(Value(R"(seqpar_rank_slowness_ratio{device="1",node="a"})"), -1);
}

TEST_F(JobMetricsTest, NodesAndDevicesAreShownAsTheyAre) {
  class Link : public NodeLink {
   public:
    void Send(v1::CoordinatorMessage) override {}
    void Close(const absl::Status&) override {}
  };
  NodeRegistry nodes;
  const auto attach = [&](const std::string& name) {
    v1::Hello hello;
    hello.set_node(name);
    hello.set_version("1.2");
    hello.add_devices();
    hello.add_devices();
    nodes.Attach(hello, std::make_shared<Link>(), 1, 0);
  };
  attach("a");
  attach("b");
  nodes.Occupy("a", 1, "j-1", 0);
  nodes.SetDrained("b", true);
  nodes.SetDrained("heard-of-only", true);
  metrics_.NodesSeen(nodes.nodes());
  EXPECT_EQ(Value(R"(seqpar_nodes{state="READY"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_nodes{state="DRAINING"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_nodes{state="LOST"})"), 0);
  EXPECT_EQ(Value(R"(seqpar_devices{state="FREE"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_devices{state="BUSY"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_devices{state="DRAINING"})"), 2);
  EXPECT_EQ(Value(R"(seqpar_node_info{node="b",state="DRAINING",version="1.2"})"), 1);
  nodes.Change("a")->set_aside = {{0, "holds memory"}, {1, "holds memory"}};
  metrics_.NodesSeen(nodes.nodes());
  EXPECT_EQ(Value(R"(seqpar_devices{state="SET_ASIDE"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_devices{state="BUSY"})"), 1) << "its last rank is still known";
  EXPECT_EQ(Value(R"(seqpar_devices{state="FREE"})"), 0);
  nodes.Change("a")->lost = true;
  metrics_.NodesSeen(nodes.nodes());
  EXPECT_EQ(Value(R"(seqpar_devices{state="LOST"})"), 2);
  EXPECT_EQ(Value(R"(seqpar_node_info{node="a",state="LOST",version="1.2"})"), 1);
  EXPECT_EQ(Value(R"(seqpar_node_info{node="a",state="READY",version="1.2"})"), -1);
  nodes.Release("j-1");
  nodes.Forget("a");
  metrics_.NodesSeen(nodes.nodes());
  EXPECT_EQ(Value(R"(seqpar_nodes{state="LOST"})"), 0);
  EXPECT_EQ(Value(R"(seqpar_devices{state="LOST"})"), 0);
  EXPECT_EQ(Value(R"(seqpar_node_info{node="a",state="LOST",version="1.2"})"), -1);
}

TEST_F(JobMetricsTest, LeasesAndRequestsAreObserved) {
  metrics_.LeaseExtended("a", 2 * kSecond);
  EXPECT_EQ(Value("seqpar_lease_margin_seconds_sum"), 2);
  metrics_.RequestPassed(JobPhase::kValidate, 0.25);
  EXPECT_EQ(Value(R"(seqpar_job_phase_seconds_sum{phase="validate"})"), 0.25);
}

}  // namespace
}  // namespace seqpar
