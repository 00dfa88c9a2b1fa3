// A whole coordinator on a free port, with a clock that stands still unless the test moves it.
#ifndef SEQPAR_TESTS_COORDINATOR_API_COORDINATOR_FIXTURE_H_
#define SEQPAR_TESTS_COORDINATOR_API_COORDINATOR_FIXTURE_H_

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/server.h"
#include "seqpar/v1/service.grpc.pb.h"
#include "tests/coordinator/api/fake_worker.h"
#include "tests/coordinator/job_machine/samples.h"
#include "tests/coordinator/validate/job_files.h"
#include "tests/support/time.h"

namespace seqpar {

class CoordinatorTest : public ::testing::Test {
 protected:
  void SetUp() override { StartServer(); }
  void TearDown() override { server_.reset(); }

  void StartServer() {
    CoordinatorConfig config;
    config.listen = "127.0.0.1:0";
    config.state_dir = folder_ / "state";
    config.data_roots = {{"data", folder_.path()}};
    config.test_holds = holds_;
    Configure(&config);
    auto server = CoordinatorServer::Create(config, &clock_, [](const absl::Status&) {});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    const auto channel = grpc::CreateChannel(server_->address(), credentials_);
    jobs_ = v1::JobService::NewStub(channel);
    cluster_ = v1::ClusterService::NewStub(channel);
  }

  // What a test changes of a server before it starts.
  virtual void Configure(CoordinatorConfig*) {}

  std::unique_ptr<FakeWorker> Worker(FakeWorker::Options options = {}) {
    auto worker = std::make_unique<FakeWorker>(server_->address(), std::move(options));
    EXPECT_TRUE(worker->WaitWelcome());
    return worker;
  }

  // A job of exactly two ranks.
  static v1::Job Job(const std::string& output = "") {
    JobSpec spec = SampleSpec();
    spec.output_file = output;
    spec.output_hidden_states = !output.empty();
    spec.min_workers = spec.max_workers = 2;
    return JobToProto(spec);
  }

  struct Call {
    Call() { context.set_deadline(std::chrono::system_clock::now() + TestSeconds(30)); }
    grpc::ClientContext context;
  };

  grpc::Status TryCreate(const v1::Job& job, const std::string& request_id, v1::Job* created) {
    Call call;
    v1::CreateJobRequest request;
    *request.mutable_job() = job;
    request.set_request_id(request_id);
    return jobs_->CreateJob(&call.context, request, created);
  }
  v1::Node Drain(const std::string& name, bool undo = false) {
    Call call;
    v1::DrainNodeRequest request;
    request.set_name(name);
    request.set_undo(undo);
    v1::Node node;
    const grpc::Status status = cluster_->DrainNode(&call.context, request, &node);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return node;
  }
  std::vector<v1::Node> Nodes() {
    Call call;
    v1::ListNodesResponse response;
    EXPECT_TRUE(cluster_->ListNodes(&call.context, {}, &response).ok());
    return {response.nodes().begin(), response.nodes().end()};
  }
  v1::Job Create(const v1::Job& job, const std::string& request_id = "") {
    v1::Job created;
    const grpc::Status status = TryCreate(job, request_id, &created);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return created;
  }
  v1::Job Get(const std::string& id) {
    Call call;
    v1::GetJobRequest request;
    request.set_id(id);
    v1::Job job;
    const grpc::Status status = jobs_->GetJob(&call.context, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }
  v1::Job Cancel(const std::string& id) {
    Call call;
    v1::CancelJobRequest request;
    request.set_id(id);
    v1::Job job;
    const grpc::Status status = jobs_->CancelJob(&call.context, request, &job);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return job;
  }
  // Watches until `done` says so or the stream ends; every state that was seen.
  std::vector<v1::Job> Watch(const std::string& id, const std::function<bool(const v1::Job&)>& done,
                             int64_t revision = 0) {
    Call call;
    v1::WatchJobRequest request;
    request.set_id(id);
    request.set_revision(revision);
    auto reader = jobs_->WatchJob(&call.context, request);
    std::vector<v1::Job> seen;
    v1::JobEvent event;
    while (reader->Read(&event)) {
      seen.push_back(event.job());
      if (done(event.job())) call.context.TryCancel();
    }
    watch_status_ = reader->Finish();
    return seen;
  }
  v1::Job WaitEnded(const std::string& id) {
    const std::vector<v1::Job> seen = Watch(id, [](const v1::Job&) { return false; });
    EXPECT_TRUE(watch_status_.ok()) << watch_status_.error_message();
    return seen.empty() ? v1::Job() : seen.back();
  }
  v1::Job WaitReason(const std::string& id, const std::string& text) {
    return Watch(id, [&](const v1::Job& job) { return job.reason().find(text) != std::string::npos; }).back();
  }

  static absl::Status Details(const grpc::Status& status) {
    google::rpc::Status proto;
    EXPECT_TRUE(proto.ParseFromString(status.error_details()));
    return StatusFromProto(proto);
  }

  JobFiles folder_;                        // the state folder, and the data root
  std::map<JobPhase, std::string> holds_;  // of servers started from now on
  FakeClock clock_;
  std::shared_ptr<grpc::ChannelCredentials> credentials_ =
      grpc::InsecureChannelCredentials();  // of the stubs
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
  grpc::Status watch_status_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COORDINATOR_API_COORDINATOR_FIXTURE_H_
