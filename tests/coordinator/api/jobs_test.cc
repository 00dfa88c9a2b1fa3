// What clients see of jobs, through a real channel.
#include <algorithm>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/coordinator/api/coordinator_fixture.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

using JobsTest = CoordinatorTest;

TEST_F(JobsTest, FromSubmitToReport) {
  auto worker = Worker();
  const v1::Job created = Create(Job("out.safetensors"));
  EXPECT_EQ(created.state(), v1::JOB_STATE_PENDING);
  EXPECT_EQ(created.id().size(), 18u);
  const v1::Job done = WaitEnded(created.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(done.phase(), v1::JOB_PHASE_REPORT);
  EXPECT_EQ(done.report().ranks_size(), 2);
  EXPECT_EQ(done.progress().percent(), 100);
  ASSERT_EQ(done.attempts_size(), 1);
  EXPECT_EQ(done.attempts(0).devices_size(), 2);
  EXPECT_FALSE(done.attempts(0).has_error());
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(worker->staging_file()));
  // From the store, once it has ended.
  const v1::Job stored = Get(created.id());
  EXPECT_EQ(stored.SerializeAsString(), done.SerializeAsString());
  // Watching from the end on: nothing new, and the stream ends.
  EXPECT_TRUE(Watch(
                  created.id(), [](const v1::Job&) { return false; }, done.revision())
                  .empty());
  EXPECT_TRUE(watch_status_.ok());
}

TEST_F(JobsTest, ARepeatedRequestAnswersWithItsJob) {
  auto worker = Worker();
  const v1::Job first = Create(Job("out.safetensors"), "once");
  EXPECT_EQ(Create(Job("out.safetensors"), "once").id(), first.id());
  WaitEnded(first.id());
  // Its output stands now: as a new job it would be refused.
  EXPECT_EQ(Create(Job("out.safetensors"), "once").id(), first.id());
  v1::Job other;
  const grpc::Status reused = TryCreate(Job(), "once", &other);
  EXPECT_EQ(reused.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(ReasonOf(Details(reused)), reason::kRequestIdReused);
}

TEST_F(JobsTest, AnInvalidJobIsToldEverything) {
  v1::Job job = Job("../out.safetensors");
  job.mutable_config()->set_num_attention_heads(-1);
  v1::Job created;
  const grpc::Status status = TryCreate(job, "", &created);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const absl::Status details = Details(status);
  EXPECT_EQ(ReasonOf(details), reason::kInvalidJob);
  EXPECT_GE(ViolationsOf(details).size(), 2u);
}

TEST_F(JobsTest, ValidateOnlyStoresNothing) {
  Call call;
  v1::CreateJobRequest request;
  *request.mutable_job() = Job();
  request.set_validate_only(true);
  v1::Job job;
  ASSERT_TRUE(jobs_->CreateJob(&call.context, request, &job).ok());
  EXPECT_EQ(job.id(), "");
  Call list;
  v1::ListJobsResponse response;
  ASSERT_TRUE(jobs_->ListJobs(&list.context, {}, &response).ok());
  EXPECT_EQ(response.jobs_size(), 0);
}

TEST_F(JobsTest, WaitsAndSaysWhy) {
  const v1::Job created = Create(Job());
  EXPECT_THAT(WaitReason(created.id(), "node").reason(), HasSubstr("waits for a node"));
  auto small = Worker({.node = "small", .devices = 1});
  EXPECT_THAT(WaitReason(created.id(), "2").reason(), HasSubstr("waits for 2 devices"));
  auto large = Worker({.node = "large", .devices = 1});
  const v1::Job done = WaitEnded(created.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(done.attempts(0).devices(), ::testing::UnorderedElementsAre("large/0", "small/0"));
}

// More than a pass of the scheduler takes, none of which the node can ever serve: they say why, and hold up
// nobody; one that fits runs past all of them.
TEST_F(JobsTest, ManyThatWaitForOtherNodesHoldUpNobody) {
  auto worker = Worker({.devices = 2});
  v1::Job large = Job();
  large.mutable_workers()->set_min(64);
  large.mutable_workers()->set_max(64);
  std::vector<std::string> waiting;
  for (int i = 0; i < 450; ++i) waiting.push_back(Create(large).id());
  const v1::Job done = WaitEnded(Create(Job()).id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  for (const std::string& id : {waiting.front(), waiting[225], waiting.back()}) {
    EXPECT_THAT(WaitReason(id, "64 devices").reason(), HasSubstr("waits for 64 devices"));
  }
}

TEST_F(JobsTest, CancelWhereverItIs) {
  const v1::Job waiting = Create(Job());
  EXPECT_EQ(Cancel(waiting.id()).state(), v1::JOB_STATE_CANCELLED);

  auto worker = Worker({.hold = true});
  const v1::Job running = Create(Job("out.safetensors"));
  ASSERT_TRUE(worker->WaitTables(1));
  const std::string staging = worker->staging_file();
  EXPECT_TRUE(std::filesystem::exists(staging));
  Cancel(running.id());
  const v1::Job done = WaitEnded(running.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_CANCELLED);
  // One that has ended stays what it is.
  EXPECT_EQ(Cancel(running.id()).SerializeAsString(), Get(running.id()).SerializeAsString());
  server_->Shutdown();  // unlinking is done when it returns
  EXPECT_FALSE(std::filesystem::exists(staging));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.safetensors"));
}

TEST_F(JobsTest, LiveJobsShareNoTarget) {
  const v1::Job first = Create(Job("out.safetensors"));
  v1::Job second;
  const grpc::Status status = TryCreate(Job("out.safetensors"), "", &second);
  EXPECT_EQ(ReasonOf(Details(status)), reason::kOutputInUse);
  EXPECT_THAT(status.error_message(), HasSubstr(first.id()));
  Cancel(first.id());
  EXPECT_TRUE(TryCreate(Job("out.safetensors"), "", &second).ok());
}

TEST_F(JobsTest, ListsByPageStateAndLabel) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) {
    v1::Job job = Job();
    (*job.mutable_labels())["parity"] = i % 2 == 0 ? "even" : "odd";
    ids.push_back(Create(job).id());
  }
  Cancel(ids[4]);
  const auto list = [this](v1::ListJobsRequest request) {
    Call call;
    v1::ListJobsResponse response;
    EXPECT_TRUE(jobs_->ListJobs(&call.context, request, &response).ok());
    return response;
  };
  v1::ListJobsRequest request;
  request.set_page_size(2);
  std::vector<std::string> seen;
  do {
    const v1::ListJobsResponse page = list(request);
    for (const v1::Job& job : page.jobs()) seen.push_back(job.id());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(seen, std::vector<std::string>(ids.rbegin(), ids.rend()));

  request = v1::ListJobsRequest();
  (*request.mutable_labels())["parity"] = "even";
  EXPECT_EQ(list(request).jobs_size(), 3);
  request.add_states(v1::JOB_STATE_CANCELLED);
  EXPECT_EQ(list(request).jobs_size(), 1);
}

// Clients take messages of 4 MiB where they say nothing else, and a server has other things to hold.
TEST_F(JobsTest, APageOfLargeJobsIsShorter) {
  constexpr int kDocuments = 1'200'000;  // a byte each
  v1::Job job = Job();
  job.mutable_input()->set_tokens(kDocuments);
  for (int i = 0; i < kDocuments; ++i) job.mutable_mask()->add_documents(1);
  std::vector<std::string> ids, seen;
  for (int i = 0; i < 5; ++i) ids.push_back(Create(job).id());
  v1::ListJobsRequest request;
  size_t longest = 0;
  do {
    Call call;
    v1::ListJobsResponse page;
    const grpc::Status status = jobs_->ListJobs(&call.context, request, &page);
    ASSERT_TRUE(status.ok()) << status.error_message();
    longest = std::max(longest, page.ByteSizeLong());
    for (const v1::Job& one : page.jobs()) seen.push_back(one.id());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_EQ(seen, std::vector<std::string>(ids.rbegin(), ids.rend()));
  EXPECT_LT(longest, 4u << 20);
}

TEST_F(JobsTest, APageTokenBelongsToItsFilter) {
  for (int i = 0; i < 3; ++i) {
    v1::Job job = Job();
    (*job.mutable_labels())["team"] = "a";
    Create(job);
  }
  const auto list = [this](const v1::ListJobsRequest& request, v1::ListJobsResponse* response) {
    Call call;
    return jobs_->ListJobs(&call.context, request, response);
  };
  v1::ListJobsRequest request;
  (*request.mutable_labels())["team"] = "a";
  request.add_states(v1::JOB_STATE_PENDING);
  request.set_page_size(1);
  v1::ListJobsResponse first, response;
  ASSERT_TRUE(list(request, &first).ok());
  ASSERT_FALSE(first.next_page_token().empty());
  request.set_page_token(first.next_page_token());
  request.set_page_size(500'000);  // another size is no other list, and beyond the most it is the most
  ASSERT_TRUE(list(request, &response).ok());
  EXPECT_EQ(response.jobs_size(), 2);
  EXPECT_EQ(response.next_page_token(), "");

  v1::ListJobsRequest other = request;
  other.clear_labels();
  v1::ListJobsRequest forged = request;
  forged.set_page_token("not a token");
  for (const v1::ListJobsRequest& bad : {other, forged}) {
    const grpc::Status status = list(bad, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    ASSERT_EQ(ViolationsOf(Details(status)).size(), 1u);
    EXPECT_EQ(ViolationsOf(Details(status))[0].field, "page_token");
  }
}

TEST_F(JobsTest, RequestAndJobAreJudgedInOneAnswer) {
  v1::Job job = Job();
  job.mutable_config()->set_hidden_size(0);
  v1::Job created;
  const absl::Status details = Details(TryCreate(job, std::string(129, 'x'), &created));
  EXPECT_EQ(ReasonOf(details), reason::kInvalidJob);
  std::vector<std::string> fields;
  for (const Violation& violation : ViolationsOf(details)) fields.push_back(violation.field);
  EXPECT_THAT(fields, ::testing::IsSupersetOf({"request_id", "config.hidden_size"}));
}

// Its devices are too small for any mesh of a job.
constexpr int64_t kTooSmall = 1000;

TEST_F(JobsTest, WhatNoMeshFitsIsRefusedAtOnce) {
  auto small = Worker({.memory_bytes = kTooSmall});
  v1::Job created;
  const grpc::Status status = TryCreate(Job(), "", &created);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(Details(status)), reason::kInfeasible);
  EXPECT_THAT(status.error_message(), HasSubstr("comes nearest and needs"));
}

TEST_F(JobsTest, WhatOtherNodesFitWaitsForThem) {
  auto small = Worker({.node = "small", .memory_bytes = kTooSmall});
  auto large = Worker({.node = "large"});
  Drain("large");
  const v1::Job created = Create(Job());
  WaitReason(created.id(), "waits for nodes that take no ranks now (large)");
  // It goes away altogether, and the coordinator with what it knew of it: what fitted once is never refused.
  large.reset();
  small.reset();
  server_.reset();
  StartServer();
  small = Worker({.node = "small", .memory_bytes = kTooSmall});
  clock_.AdvanceMicros(5'000'000);
  small->Heartbeat(1);
  ASSERT_TRUE(small->WaitHeartbeatAnswer(1));
  clock_.AdvanceMicros(1'000'000);
  WaitReason(created.id(), "waits for other nodes");
  large = Worker({.node = "large"});  // still drained: no node more is ready, and yet the reason is another
  WaitReason(created.id(), "waits for nodes that take no ranks now (large)");
  Drain("large", /*undo=*/true);
  EXPECT_EQ(WaitEnded(created.id()).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(JobsTest, AQueuedJobIsRefusedOnlyOnceItIsKnownWhichNodesCome) {
  const v1::Job created = Create(Job());  // with no node here nothing is known
  auto small = Worker({.node = "small", .memory_bytes = kTooSmall});
  WaitReason(created.id(), "waits to see which nodes come");
  clock_.AdvanceMicros(5'000'000);
  small->Heartbeat(1);
  ASSERT_TRUE(small->WaitHeartbeatAnswer(1));
  EXPECT_EQ(Get(created.id()).state(), v1::JOB_STATE_PENDING);
  clock_.AdvanceMicros(1'000'000);
  const v1::Job refused = WaitEnded(created.id());
  EXPECT_EQ(refused.state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(ReasonOf(StatusFromProto(refused.error())), reason::kInfeasible);
}

TEST_F(JobsTest, TheReportCountsTheTensorsThatValidationIgnored) {
  v1::Job job = GoodJob();
  folder_.WriteTensors("weights.safetensors", WeightsOf(job));
  job.mutable_weights()->set_file("weights.safetensors");
  job.mutable_workers()->set_min(2);
  job.mutable_workers()->set_max(2);
  const v1::Job created = Create(job);
  server_.reset();
  StartServer();  // the count is stored
  auto worker = Worker();
  EXPECT_EQ(WaitEnded(created.id()).report().ignored_tensors(), 2) << "the embedding and the last norm";
}

TEST_F(JobsTest, ASlowTwinOfARequestGetsTheJobOfTheFirst) {
  // Both pass the first look for the request_id; the second is validated when the first job's output stands.
  const v1::Job job = Job("out.safetensors");
  std::vector<v1::Job> created(8);
  std::vector<grpc::Status> statuses(created.size());
  std::vector<std::thread> twins;
  auto worker = Worker();
  for (size_t i = 0; i < created.size(); ++i) {
    twins.emplace_back([&, i] { statuses[i] = TryCreate(job, "twins", &created[i]); });
  }
  for (std::thread& twin : twins) twin.join();
  for (size_t i = 0; i < created.size(); ++i) {
    EXPECT_TRUE(statuses[i].ok()) << statuses[i].error_message();
    EXPECT_EQ(created[i].id(), created[0].id());
  }
}

TEST_F(JobsTest, WhatDoesNotExistIsNotFound) {
  Call call, watch;
  v1::GetJobRequest request;
  request.set_id("j-0");
  v1::Job job;
  const grpc::Status status = jobs_->GetJob(&call.context, request, &job);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonOf(Details(status)), reason::kNotFound);
  Watch("j-0", [](const v1::Job&) { return false; });
  EXPECT_EQ(watch_status_.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(JobsTest, PlansOnAClusterThatOnlyExistsInARequest) {
  Call call;
  v1::PlanJobRequest request;
  *request.mutable_job() = Job();
  v1::NodeSpec* node = request.mutable_cluster()->add_nodes();
  node->set_name("n");
  node->set_devices_each(4);
  *node->add_devices() = FakeWorker::Device();
  node->mutable_local()->set_latency(1e-6);
  node->mutable_local()->set_bandwidth(1e10);
  *request.mutable_cluster()->mutable_network() = node->local();
  v1::PlanJobResponse response;
  const grpc::Status status = jobs_->PlanJob(&call.context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.plan().ranks_size(), 2);
  EXPECT_GE(response.explanation().best_size(), 1);
}

}  // namespace
}  // namespace seqpar
