#include "client/lib/wait.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include "common/base/retry.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::JobEvent Event(int64_t revision, v1::JobState state) {
  v1::JobEvent event;
  event.set_revision(revision);
  event.mutable_job()->set_id("j-1");
  event.mutable_job()->set_state(state);
  event.mutable_job()->set_revision(revision);
  return event;
}

// One answer of WatchJob: these events, then this status, after so much time.
struct Stream {
  std::vector<v1::JobEvent> events;
  absl::Status end;
  double seconds = 0;
};

class FakeService : public SeqparService {
 public:
  explicit FakeService(FakeClock* clock) : clock_(clock) {}

  absl::Status WatchJob(const v1::WatchJobRequest& request, double seconds,
                        const std::function<bool(const v1::JobEvent&)>& on_event) override {
    resumed_from.push_back(request.revision());
    if (streams.empty()) return absl::InternalError("the test has no more streams");
    const Stream stream = streams.front();
    if (streams.size() > 1 || !repeat_last) streams.pop_front();
    clock_->AdvanceMicros(static_cast<int64_t>(1e6 * std::min(seconds, stream.seconds)));
    for (const v1::JobEvent& event : stream.events) {
      if (!on_event(event)) return absl::OkStatus();
    }
    return stream.end;
  }
  absl::StatusOr<v1::Job> GetJob(const v1::GetJobRequest& request) override {
    if (!get_errors.empty()) {
      const absl::Status error = get_errors.front();
      get_errors.pop_front();
      return error;
    }
    v1::Job job = Event(99, v1::JOB_STATE_SUCCEEDED).job();
    job.mutable_report()->set_attempt(1);
    return job;
  }
  absl::StatusOr<v1::Job> CreateJob(const v1::CreateJobRequest&) override { return Unused(); }
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest&) override { return Unused(); }
  absl::StatusOr<v1::Job> CancelJob(const v1::CancelJobRequest&) override { return Unused(); }
  absl::StatusOr<v1::PlanJobResponse> PlanJob(const v1::PlanJobRequest&) override { return Unused(); }
  absl::StatusOr<v1::GetJobLogsResponse> GetJobLogs(const v1::GetJobLogsRequest&) override {
    return Unused();
  }
  absl::StatusOr<v1::GetJobTraceResponse> GetJobTrace(const v1::GetJobTraceRequest&) override {
    return Unused();
  }
  absl::StatusOr<v1::ListNodesResponse> ListNodes(const v1::ListNodesRequest&) override { return Unused(); }
  absl::StatusOr<v1::Node> GetNode(const v1::GetNodeRequest&) override { return Unused(); }
  absl::StatusOr<v1::Node> DrainNode(const v1::DrainNodeRequest&) override { return Unused(); }
  absl::StatusOr<v1::BackupStoreResponse> BackupStore(const v1::BackupStoreRequest&) override {
    return Unused();
  }

  std::deque<Stream> streams;
  std::deque<absl::Status> get_errors;
  bool repeat_last = false;
  std::vector<int64_t> resumed_from;

 private:
  static absl::Status Unused() { return absl::InternalError("not used here"); }
  FakeClock* clock_;
};

class WaitForJobTest : public ::testing::Test {
 protected:
  absl::StatusOr<v1::Job> Wait() {
    WaitHooks hooks;
    hooks.on_change = [this](const v1::Job& job) { changes_.push_back(job.revision()); };
    hooks.on_message = [this](const std::string& text) { messages_.push_back(text); };
    hooks.sleep = [this](double seconds) {
      slept_.push_back(seconds);
      clock_.AdvanceMicros(static_cast<int64_t>(seconds * 1e6) + 1);
    };
    return WaitForJob(service_, "j-1", options_, clock_, hooks);
  }

  FakeClock clock_;
  FakeService service_{&clock_};
  WaitOptions options_;
  std::vector<int64_t> changes_;
  std::vector<std::string> messages_;
  std::vector<double> slept_;
};

absl::Status Overloaded(int retry_seconds) {
  const absl::Status full =
      MakeError(absl::StatusCode::kResourceExhausted, reason::kOverloaded, "too many calls");
  return WithRetry(full, retry_seconds);
}

TEST_F(WaitForJobTest, ReportsEachChangeAndEndsWithTheReport) {
  service_.streams = {
      {{Event(3, v1::JOB_STATE_PENDING), Event(4, v1::JOB_STATE_RUNNING), Event(7, v1::JOB_STATE_SUCCEEDED)},
       absl::OkStatus()}};
  const absl::StatusOr<v1::Job> job = Wait();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(job->has_report());
  EXPECT_THAT(changes_, ElementsAre(3, 4, 7));
  EXPECT_TRUE(messages_.empty());
}

TEST_F(WaitForJobTest, GoesThroughARestartFromTheLastRevision) {
  service_.streams = {
      {{Event(3, v1::JOB_STATE_RUNNING)}, absl::UnavailableError("socket closed")},
      {{}, absl::UnavailableError("connection refused")},
      {{Event(3, v1::JOB_STATE_RUNNING), Event(5, v1::JOB_STATE_CANCELLED)}, absl::OkStatus()}};
  const absl::StatusOr<v1::Job> job = Wait();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::JOB_STATE_CANCELLED);
  EXPECT_THAT(changes_, ElementsAre(3, 5));
  EXPECT_THAT(service_.resumed_from, ElementsAre(0, 3, 3));
  EXPECT_THAT(messages_, ElementsAre(HasSubstr("cannot be reached"), HasSubstr("answers again")));
}

TEST_F(WaitForJobTest, AStreamThatAServerGaveUpIsNoCancelledJob) {
  service_.streams = {{{Event(3, v1::JOB_STATE_RUNNING)}, absl::CancelledError("the call was cancelled")},
                      {{Event(5, v1::JOB_STATE_SUCCEEDED)}, absl::OkStatus()}};
  const absl::StatusOr<v1::Job> job = Wait();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_THAT(changes_, ElementsAre(3, 5));
}

TEST_F(WaitForJobTest, AServiceThatHasTooManyCallsIsAskedAgain) {
  service_.streams = {{{Event(3, v1::JOB_STATE_RUNNING)}, Overloaded(0)},
                      {{}, Overloaded(7)},
                      {{}, Overloaded(45)},
                      {{Event(5, v1::JOB_STATE_SUCCEEDED)}, absl::OkStatus()}};
  const absl::StatusOr<v1::Job> job = Wait();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_THAT(changes_, ElementsAre(3, 5));
  EXPECT_THAT(slept_, ElementsAre(0.5, 7, 45)) << "as long as it is told to";
  EXPECT_THAT(messages_,
              ElementsAre(HasSubstr("has too much to do (too many calls)"), HasSubstr("answers again")));
  // What does not pass by waiting is no such answer.
  service_.streams = {{{}, absl::ResourceExhaustedError("too many calls")}};
  EXPECT_EQ(Wait().status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(WaitForJobTest, AServiceThatStaysOverloadedIsGivenUpWithItsError) {
  options_.reconnect_seconds = 10;
  service_.repeat_last = true;
  service_.streams = {{{}, Overloaded(3600)}};
  EXPECT_EQ(ReasonOf(Wait().status()), reason::kOverloaded);
  EXPECT_THAT(slept_, ElementsAre(10)) << "no longer than it may be so";
}

TEST_F(WaitForJobTest, WhatKeepsTheServiceFromAnsweringIsSaidWhenItChanges) {
  service_.streams = {{{}, Overloaded(1)},
                      {{}, absl::UnavailableError("connection refused")},
                      {{}, absl::UnavailableError("connection refused")},
                      {{Event(5, v1::JOB_STATE_SUCCEEDED)}, absl::OkStatus()}};
  ASSERT_TRUE(Wait().ok());
  EXPECT_THAT(messages_, ElementsAre(HasSubstr("has too much to do"), HasSubstr("cannot be reached"),
                                     HasSubstr("answers again")));
}

TEST_F(WaitForJobTest, TheReportIsAskedForAgainToo) {
  service_.streams = {{{Event(5, v1::JOB_STATE_SUCCEEDED)}, absl::OkStatus()}};
  service_.get_errors = {absl::UnavailableError("socket closed"), Overloaded(3)};
  const absl::StatusOr<v1::Job> job = Wait();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE(job->has_report());
  EXPECT_THAT(slept_, ElementsAre(0.5, 3));
  EXPECT_EQ(service_.resumed_from.size(), 1u) << "the job has ended: there is nothing to watch";
  service_.streams = {{{Event(5, v1::JOB_STATE_SUCCEEDED)}, absl::OkStatus()}};
  service_.get_errors = {absl::NotFoundError("it is forgotten")};
  EXPECT_EQ(Wait().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(WaitForJobTest, ItsOwnBoundComesBeforeTheTimeThatIsAskedFor) {
  options_.wait_seconds = 5;
  service_.streams = {{{}, Overloaded(30)}};
  service_.repeat_last = true;
  EXPECT_EQ(Wait().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(slept_, ElementsAre(5));
}

TEST_F(WaitForJobTest, GivesUpWhenTheServiceStaysAway) {
  options_.reconnect_seconds = 10;
  service_.streams = {{{}, absl::UnavailableError("connection refused")}};
  service_.repeat_last = true;
  EXPECT_EQ(Wait().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_GE(service_.resumed_from.size(), 10u);
  EXPECT_EQ(messages_.size(), 1u);
}

TEST_F(WaitForJobTest, ASilentStreamIsNoFailure) {
  service_.streams = {{{}, absl::DeadlineExceededError("stream"), 30},
                      {{}, absl::DeadlineExceededError("stream"), 30},
                      {{Event(1, v1::JOB_STATE_FAILED)}, absl::OkStatus()}};
  const absl::StatusOr<v1::Job> job = Wait();
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::JOB_STATE_FAILED);
}

TEST_F(WaitForJobTest, ItsOwnBoundIsADeadline) {
  options_.wait_seconds = 45;
  service_.streams = {{{Event(1, v1::JOB_STATE_RUNNING)}, absl::DeadlineExceededError("stream"), 30}};
  service_.repeat_last = true;
  const absl::Status status = Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("j-1 has not ended after 45"));
  EXPECT_EQ(service_.resumed_from.size(), 2u);
}

TEST_F(WaitForJobTest, OtherErrorsAreTheAnswer) {
  service_.streams = {{{}, MakeError(absl::StatusCode::kNotFound, reason::kNotFound, "no job j-1")}};
  EXPECT_EQ(Wait().status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(service_.resumed_from.size(), 1u);
}

}  // namespace
}  // namespace seqpar
