// Every error of every call has an ErrorInfo of domain "seqpar" with a reason that never changes.
#include "common/base/retry.h"
#include "common/job/rpc_status.h"
#include "google/rpc/error_details.pb.h"
#include "seqpar/v1/fleet.grpc.pb.h"
#include "tests/coordinator/api/coordinator_fixture.h"

namespace seqpar {
namespace {

class ErrorsTest : public CoordinatorTest {
 protected:
  template <typename Stub, typename Method, typename Request, typename Response>
  grpc::Status Ask(Stub& stub, Method method, const Request& request, Response response) {
    Call call;
    return ((*stub).*method)(&call.context, request, &response);
  }

  // "NOT_FOUND: REASON", and checks the details.
  static std::string Told(const grpc::Status& status) {
    google::rpc::Status proto;
    EXPECT_TRUE(proto.ParseFromString(status.error_details()));
    EXPECT_EQ(proto.code(), static_cast<int>(status.error_code()));
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    bool has_bad = false;
    for (const auto& detail : proto.details()) {
      detail.UnpackTo(&info);
      has_bad = has_bad || detail.UnpackTo(&bad);
    }
    EXPECT_EQ(info.domain(), "seqpar");
    EXPECT_EQ(has_bad, status.error_code() == grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_EQ(has_bad, bad.field_violations_size() > 0);
    return absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())) + ": " +
           info.reason();
  }

  // Opens a stream of a worker that says `message` first.
  grpc::Status Attach(const v1::WorkerMessage& message) {
    const auto fleet = v1::FleetService::NewStub(
        grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
    Call call;
    const auto stream = fleet->Attach(&call.context);
    stream->Write(message);
    v1::CoordinatorMessage answer;
    while (stream->Read(&answer)) {
    }
    return stream->Finish();
  }
};

TEST_F(ErrorsTest, OfAJobThatItsClientCouldNotReadWhole) {
  v1::CreateJobRequest request;
  *request.mutable_job() = Job();
  request.set_request_id("r");
  ASSERT_TRUE(Ask(jobs_, &v1::JobService::Stub::CreateJob, request, v1::Job()).ok());
  // Neither created, nor answered with the job that the same request made when it could be read.
  request.add_unread()->set_field("maks");  // it should say what is wrong
  const grpc::Status refused = Ask(jobs_, &v1::JobService::Stub::CreateJob, request, v1::Job());
  EXPECT_EQ(Told(refused), "INVALID_ARGUMENT: INVALID_JOB");
  request.clear_request_id();
  EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::CreateJob, request, v1::Job())),
            "INVALID_ARGUMENT: INVALID_JOB");
  v1::ListJobsResponse list;
  Call call;
  ASSERT_TRUE(jobs_->ListJobs(&call.context, {}, &list).ok());
  EXPECT_EQ(list.jobs_size(), 1);
}

// What a client says that it could not read comes back to it: not without words, nor more than an answer
// holds.
TEST_F(ErrorsTest, OfAnUnreadFieldThatSaysNothingOrTooMuch) {
  for (const std::string& description : {std::string(), std::string(1 << 20, 'x')}) {
    v1::CreateJobRequest request;
    *request.mutable_job() = Job();
    v1::Violation* unread = request.add_unread();
    if (!description.empty()) unread->set_field("maks");
    unread->set_description(description);
    const grpc::Status refused = Ask(jobs_, &v1::JobService::Stub::CreateJob, request, v1::Job());
    EXPECT_EQ(Told(refused), "INVALID_ARGUMENT: INVALID_JOB");
    EXPECT_NE(refused.error_message().find("unread[0]: needs a field and a description"), std::string::npos)
        << refused.error_message();
  }
}

TEST_F(ErrorsTest, OfWhatDoesNotExist) {
  v1::GetJobRequest get;
  v1::CancelJobRequest cancel;
  v1::GetJobLogsRequest logs;
  v1::WatchJobRequest watch;
  v1::GetNodeRequest get_node;
  v1::DrainNodeRequest drain;
  for (const char* id : {"", "j-0"}) {
    get.set_id(id);
    cancel.set_id(id);
    logs.set_id(id);
    get_node.set_name(id);
    drain.set_name(id);
    EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::GetJob, get, v1::Job())), "NOT_FOUND: NOT_FOUND");
    EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::CancelJob, cancel, v1::Job())), "NOT_FOUND: NOT_FOUND");
    EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::GetJobLogs, logs, v1::GetJobLogsResponse())),
              "NOT_FOUND: NOT_FOUND");
    Watch(id, [](const v1::Job&) { return false; });
    EXPECT_EQ(Told(watch_status_), "NOT_FOUND: NOT_FOUND");
    EXPECT_EQ(Told(Ask(cluster_, &v1::ClusterService::Stub::GetNode, get_node, v1::Node())),
              "NOT_FOUND: NOT_FOUND");
    EXPECT_EQ(Told(Ask(cluster_, &v1::ClusterService::Stub::DrainNode, drain, v1::Node())),
              "NOT_FOUND: NOT_FOUND");
  }
}

TEST_F(ErrorsTest, OfListsThatCannotBe) {
  v1::ListJobsRequest negative, no_state, no_such_state, token;
  negative.set_page_size(-1);
  no_state.add_states(v1::JOB_STATE_UNSPECIFIED);
  no_such_state.add_states(static_cast<v1::JobState>(99));
  token.set_page_token("ffff");
  for (const v1::ListJobsRequest& request : {negative, no_state, no_such_state, token}) {
    EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::ListJobs, request, v1::ListJobsResponse())),
              "INVALID_ARGUMENT: INVALID_ARGUMENT")
        << request.ShortDebugString();
  }
  v1::ListNodesRequest nodes, node_token;
  nodes.set_page_size(-1);
  node_token.set_page_token("a");
  for (const v1::ListNodesRequest& request : {nodes, node_token}) {
    EXPECT_EQ(Told(Ask(cluster_, &v1::ClusterService::Stub::ListNodes, request, v1::ListNodesResponse())),
              "INVALID_ARGUMENT: INVALID_ARGUMENT");
  }
}

TEST_F(ErrorsTest, OfJobsThatCannotBe) {
  v1::CreateJobRequest create;
  create.mutable_job()->set_id("j-mine");
  EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::CreateJob, create, v1::Job())),
            "INVALID_ARGUMENT: INVALID_JOB");
  *create.mutable_job() = Job();
  create.set_request_id(std::string(129, 'r'));
  EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::CreateJob, create, v1::Job())),
            "INVALID_ARGUMENT: INVALID_ARGUMENT");
  v1::PlanJobRequest plan;
  EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::PlanJob, plan, v1::PlanJobResponse())),
            "INVALID_ARGUMENT: INVALID_JOB");
  *plan.mutable_job() = Job();
  EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::PlanJob, plan, v1::PlanJobResponse())),
            "UNAVAILABLE: TOO_FEW_DEVICES");
  plan.mutable_cluster()->add_nodes();
  EXPECT_EQ(Told(Ask(jobs_, &v1::JobService::Stub::PlanJob, plan, v1::PlanJobResponse())),
            "INVALID_ARGUMENT: INVALID_ARGUMENT");
}

TEST_F(ErrorsTest, OfConflicts) {
  v1::Job created;
  ASSERT_TRUE(TryCreate(Job("out.safetensors"), "once", &created).ok());
  EXPECT_EQ(Told(TryCreate(Job(), "once", &created)), "ALREADY_EXISTS: REQUEST_ID_REUSED");
  EXPECT_EQ(Told(TryCreate(Job("out.safetensors"), "", &created)), "FAILED_PRECONDITION: OUTPUT_IN_USE");
}

// gRPC's own word, before there is a call; others are served meanwhile and afterwards.
TEST_F(ErrorsTest, OfMessagesThatAreTooLarge) {
  auto worker = Worker();
  v1::CreateJobRequest create;
  *create.mutable_job() = Job();
  create.set_request_id(std::string(size_t{17} << 20, 'r'));
  EXPECT_EQ(Ask(jobs_, &v1::JobService::Stub::CreateJob, create, v1::Job()).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  v1::WorkerMessage hello;
  hello.mutable_hello()->set_node("b");
  hello.mutable_hello()->set_version(std::string(size_t{17} << 20, 'v'));
  EXPECT_EQ(Attach(hello).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Nodes().size(), 1u);
  EXPECT_EQ(WaitEnded(Create(Job()).id()).state(), v1::JOB_STATE_SUCCEEDED);
}

class OverloadedTest : public ErrorsTest {
 protected:
  void Configure(CoordinatorConfig* config) override { config->engine.backlog.stream_bytes = 4096; }
};

TEST_F(OverloadedTest, AWorkerThatSaysTooMuchAtOnceIsToldSo) {
  const auto fleet =
      v1::FleetService::NewStub(grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  Call call;
  const auto stream = fleet->Attach(&call.context);
  v1::WorkerMessage message;
  message.mutable_hello()->set_node("a");
  message.mutable_hello()->set_version(kVersion);
  *message.mutable_hello()->add_devices() = FakeWorker::Device();
  ASSERT_TRUE(stream->Write(message));
  v1::CoordinatorMessage answer;
  ASSERT_TRUE(stream->Read(&answer));
  ASSERT_TRUE(answer.has_welcome());
  message.mutable_blob()->set_data(std::string(8192, 'x'));
  ASSERT_TRUE(stream->Write(message));
  while (stream->Read(&answer)) {
  }
  const grpc::Status ended = stream->Finish();
  EXPECT_EQ(Told(ended), "RESOURCE_EXHAUSTED: OVERLOADED");
  EXPECT_EQ(RetrySecondsOf(StatusFromRpc(ended.error_code(), ended.error_message(), ended.error_details())),
            1);
  // The same worker, or another, attaches again as if the stream had broken.
  Worker();
}

TEST_F(ErrorsTest, OfWorkers) {
  v1::WorkerMessage no_hello, bad_name, old, newer, no_devices, later_term;
  no_hello.mutable_heartbeat();
  bad_name.mutable_hello()->set_node("a/b");
  old.mutable_hello()->set_node("a");
  old.mutable_hello()->set_version("0.0.1");
  newer.mutable_hello()->set_node("a");
  newer.mutable_hello()->set_version("1000.0.0");
  no_devices.mutable_hello()->set_node("a");
  no_devices.mutable_hello()->set_version(kVersion);
  later_term = no_devices;
  *later_term.mutable_hello()->add_devices() = FakeWorker::Device();
  later_term.mutable_hello()->set_highest_term(7);
  EXPECT_EQ(Told(Attach(no_hello)), "INVALID_ARGUMENT: INVALID_ARGUMENT");
  EXPECT_EQ(Told(Attach(bad_name)), "INVALID_ARGUMENT: INVALID_ARGUMENT");
  EXPECT_EQ(Told(Attach(old)), "FAILED_PRECONDITION: VERSION_SKEW");
  EXPECT_EQ(Told(Attach(newer)), "FAILED_PRECONDITION: VERSION_SKEW");
  EXPECT_EQ(Told(Attach(no_devices)), "INVALID_ARGUMENT: INVALID_ARGUMENT");
  EXPECT_EQ(Told(Attach(later_term)), "FAILED_PRECONDITION: FAILED_PRECONDITION");
}

}  // namespace
}  // namespace seqpar
