// How clients follow a job, through a real channel: its states, logs and traces.
#include <string>
#include <vector>

#include "tests/coordinator/api/coordinator_fixture.h"

namespace seqpar {
namespace {

using FollowTest = CoordinatorTest;

TEST_F(FollowTest, RevisionsGrow) {
  auto worker = Worker({.hold = true});
  const v1::Job created = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  worker->FinishAll(worker->gang(), {0, 1});
  int64_t last = 0;
  for (const v1::Job& job : Watch(created.id(), [](const v1::Job&) { return false; })) {
    EXPECT_GT(job.revision(), last);
    last = job.revision();
  }
  EXPECT_GT(last, created.revision());
}

TEST_F(FollowTest, WatchingGoesOnFromARevision) {
  auto worker = Worker({.hold = true});
  const v1::Job created = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  const v1::Job running = Watch(created.id(), [](const v1::Job& job) { return job.attempt() == 1; }).back();
  // Nothing that was seen comes again; what comes later does.
  const v1::Job now = Get(created.id());
  worker->FinishAll(worker->gang(), {0, 1});
  const std::vector<v1::Job> later = Watch(
      created.id(), [](const v1::Job&) { return false; }, now.revision());
  ASSERT_FALSE(later.empty());
  for (const v1::Job& job : later) EXPECT_GT(job.revision(), now.revision());
  EXPECT_EQ(later.back().state(), v1::JOB_STATE_SUCCEEDED);
  // Also of a job that has ended meanwhile, and by another process.
  server_.reset();
  worker.reset();
  StartServer();
  const std::vector<v1::Job> ended = Watch(
      created.id(), [](const v1::Job&) { return false; }, running.revision());
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_TRUE(watch_status_.ok());
}

TEST_F(FollowTest, AWatcherThatDoesNotReadIsKeptTheLatestStateOnly) {
  constexpr int kStates = 400, kDocuments = 100'000;  // 100 KB a state
  auto worker = Worker({.hold = true});
  v1::Job large = Job();
  large.mutable_input()->set_tokens(kDocuments);
  for (int i = 0; i < kDocuments; ++i) large.mutable_mask()->add_documents(1);
  const v1::Job job = Create(large);
  ASSERT_TRUE(worker->WaitTables(1));
  Call call;
  v1::WatchJobRequest request;
  request.set_id(job.id());
  const auto reader = jobs_->WatchJob(&call.context, request);
  v1::JobEvent event;
  ASSERT_TRUE(reader->Read(&event)) << "it is being watched";
  const int64_t begin = event.revision();
  for (int i = 1; i <= kStates; ++i) {
    for (const int rank : {0, 1}) worker->Progress(2 * i + rank, worker->gang(), rank, 100.0 * i / kStates);
    ASSERT_TRUE(worker->WaitHeartbeatAnswer(2 * i + 1));
  }
  worker->FinishAll(worker->gang(), {0, 1});
  const v1::Job done = WaitEnded(job.id());
  ASSERT_GT(done.revision(), begin + kStates) << "there was a state for each";
  int events = 0;
  while (reader->Read(&event)) ++events;
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(event.job().state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_LT(events, kStates / 2) << "of 40 MB only what was on its way, and the last";
}

TEST_F(FollowTest, LogsComeFromEveryNode) {
  auto a = Worker({.node = "a", .devices = 1});
  auto b = Worker({.node = "b", .devices = 1});
  const v1::Job job = Create(Job());
  WaitEnded(job.id());
  Call call;
  v1::GetJobLogsRequest request;
  request.set_id(job.id());
  v1::GetJobLogsResponse response;
  ASSERT_TRUE(jobs_->GetJobLogs(&call.context, request, &response).ok());
  ASSERT_EQ(response.logs_size(), 2);
  EXPECT_EQ(response.logs(0).text(), "said by a");
  EXPECT_EQ(response.logs(1).text(), "said by b");
}

TEST_F(FollowTest, LogsOfARankOrAttemptThatWasNotAreNotFound) {
  auto worker = Worker();
  const v1::Job job = Create(Job());
  WaitEnded(job.id());
  const auto ask = [&](std::optional<int> rank, std::optional<int> attempt) {
    Call call;
    v1::GetJobLogsRequest request;
    request.set_id(job.id());
    if (rank) request.set_rank(*rank);
    if (attempt) request.set_attempt(*attempt);
    v1::GetJobLogsResponse response;
    return jobs_->GetJobLogs(&call.context, request, &response);
  };
  EXPECT_TRUE(ask(1, 1).ok());
  for (const int rank : {-1, 2}) {
    const grpc::Status status = ask(rank, std::nullopt);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
    EXPECT_EQ(status.error_message(),
              absl::StrCat("there is no rank ", rank, " of ", job.id(), ": it had 0 to 1"));
  }
  for (const int attempt : {0, 2}) EXPECT_EQ(ask(0, attempt).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(FollowTest, TracesComePageByPageAndOutliveTheJob) {
  auto worker = Worker({.hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(worker->WaitStarted(2));
  constexpr size_t kLarge = 400 << 10;
  for (const int rank : {1, 0}) {
    for (const int64_t number : {0, 1}) worker->SendTrace(worker->gang(), rank, number, kLarge);
  }
  worker->SendTrace(worker->gang(), 1, 2, size_t{2} << 20);  // larger than any worker makes: not kept
  v1::GangId later = worker->gang();
  later.set_attempt(7);
  worker->SendTrace(later, 0, 0, 1);  // of no attempt that there was
  worker->FinishAll(worker->gang(), {0, 1});
  WaitEnded(job.id());

  std::vector<std::string> told;
  v1::GetJobTraceRequest request;
  request.set_id(job.id());
  int pages = 0;
  do {
    Call call;
    v1::GetJobTraceResponse response;
    const grpc::Status status = jobs_->GetJobTrace(&call.context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.attempt(), 1);
    EXPECT_LT(response.ByteSizeLong(), size_t{2} << 20);
    for (const v1::TraceChunk& chunk : response.chunks()) {
      told.push_back(absl::StrCat(chunk.rank(), "/", chunk.number(), " ", chunk.activities(0).name().size()));
    }
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty() && ++pages < 10);
  EXPECT_THAT(told, ::testing::ElementsAre("0/0 409600", "0/1 409600", "1/0 409600", "1/1 409600"));
  EXPECT_EQ(pages, 2);

  const auto code = [this](const v1::GetJobTraceRequest& wrong) {
    Call call;
    v1::GetJobTraceResponse response;
    return jobs_->GetJobTrace(&call.context, wrong, &response).error_code();
  };
  request.set_attempt(7);
  EXPECT_EQ(code(request), grpc::StatusCode::NOT_FOUND);
  request.set_attempt(1);
  request.set_page_token("of another list");
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  request.set_id("j-0");
  EXPECT_EQ(code(request), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace seqpar
