// The layer in front of the services, over real TLS in one process: every method that there is, asked by
// everybody.
#include <grpcpp/generic/generic_stub.h>

#include <set>

#include "coordinator/auth/rules.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "tests/coordinator/api/security_fixture.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

class MethodsTest : public SecurityTest {
 protected:
  // Calls any method with nothing in its request; how the call ended.
  static grpc::Status Try(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
    grpc::GenericStub stub(channel);
    Call call;
    call.context.set_deadline(std::chrono::system_clock::now() + TestSeconds(20));
    grpc::CompletionQueue queue;
    const auto stream = stub.PrepareCall(&call.context, method, &queue);
    const auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    stream->StartCall(nullptr);
    wait();
    stream->WriteLast(grpc::ByteBuffer(nullptr, 0), grpc::WriteOptions(), nullptr);
    wait();
    grpc::ByteBuffer answer;
    stream->Read(&answer, nullptr);
    if (wait()) call.context.TryCancel();  // it was answered; a stream would go on
    grpc::Status status;
    stream->Finish(&status, nullptr);
    wait();
    return status;
  }
};

TEST_F(MethodsTest, NoMethodIsOpenToStrangers) {
  const auto channel = grpc::CreateChannel(server_->address(), As(""));
  for (const MethodRule& rule : MethodRules()) {
    const grpc::StatusCode code = Try(channel, rule.path).error_code();
    if (rule.access == Access::kAnybody) {
      EXPECT_NE(code, grpc::StatusCode::UNAUTHENTICATED) << rule.path;
      EXPECT_NE(code, grpc::StatusCode::PERMISSION_DENIED) << rule.path;
    } else {
      EXPECT_EQ(code, grpc::StatusCode::UNAUTHENTICATED) << rule.path;
    }
  }
  EXPECT_EQ(Try(channel, "/seqpar.v1.JobService/Other").error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(MethodsTest, EachMethodIsDeniedToTheRolesThatItsRuleDenies) {
  const std::map<std::string, Role> users = {
      {"vic", Role::kViewer}, {"ann", Role::kSubmitter}, {"root", Role::kOperator}, {"rack", Role::kWorker}};
  for (const auto& [name, role] : users) {
    const auto channel = grpc::CreateChannel(server_->address(), As(name));
    for (const MethodRule& rule : MethodRules()) {
      const grpc::Status status = Try(channel, rule.path);
      if (Allows(rule.access, role)) {
        EXPECT_NE(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << name << " " << rule.path;
        EXPECT_NE(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << name << " " << rule.path;
      } else {
        EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED) << name << " " << rule.path;
      }
    }
    EXPECT_EQ(Try(channel, "/seqpar.v1.JobService/Other").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  }
}

// What the server really serves, as its own reflection names it.
TEST_F(SecurityTest, EveryServedMethodHasARule) {
  namespace reflection = grpc::reflection::v1alpha;
  const auto stub = reflection::ServerReflection::NewStub(grpc::CreateChannel(server_->address(), As("vic")));
  Call call;
  const auto stream = stub->ServerReflectionInfo(&call.context);
  reflection::ServerReflectionRequest request;
  reflection::ServerReflectionResponse services, file;
  request.set_list_services("");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&services));
  std::set<std::string> served;
  for (const auto& service : services.list_services_response().service()) {
    request.set_file_containing_symbol(service.name());
    ASSERT_TRUE(stream->Write(request));
    ASSERT_TRUE(stream->Read(&file));
    for (const std::string& bytes : file.file_descriptor_response().file_descriptor_proto()) {
      google::protobuf::FileDescriptorProto proto;
      ASSERT_TRUE(proto.ParseFromString(bytes));
      for (const auto& described : proto.service()) {
        if (proto.package() + "." + described.name() != service.name()) continue;
        for (const auto& method : described.method()) {
          served.insert("/" + service.name() + "/" + method.name());
        }
      }
    }
  }
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  std::set<std::string> ruled;
  for (const MethodRule& rule : MethodRules()) ruled.insert(rule.path);
  EXPECT_EQ(served, ruled);
}

TEST_F(SecurityTest, AWorkerIsTheNodeThatItsCertificateNames) {
  FakeWorker as_another(server_->address(), {.node = "b", .credentials = As("", "node")});
  const grpc::Status refused = as_another.WaitStatus();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(refused.error_message(), HasSubstr("may attach as node a, not as b"));
  EXPECT_EQ(Details(refused).message(), refused.error_message());
  EXPECT_EQ(ReasonOf(Details(refused)), "PERMISSION_DENIED");
  auto worker = Worker({.node = "a", .credentials = As("", "node")});
  FakeWorker by_token(server_->address(), {.node = "a", .credentials = As("rack")});
  EXPECT_TRUE(by_token.WaitWelcome());
  EXPECT_THAT(ReadAll(folder_ / "audit"), HasSubstr("seqpar://node/a"));
}

TEST_F(SecurityTest, JobsOfAnotherTenantAreNotThere) {
  auto worker = Worker({.hold = true, .credentials = As("", "node")});
  const v1::Job job = Create(Job("out.safetensors"), "nightly");
  EXPECT_EQ(job.tenant(), "search");
  ASSERT_TRUE(worker->WaitTables(1));
  const auto bob = JobsAs("bob"), vic = JobsAs("vic"), root = JobsAs("root");

  const auto get = [&](const auto& stub, const std::string& id, v1::Job* answer) {
    Call call;
    v1::GetJobRequest request;
    request.set_id(id);
    return stub->GetJob(&call.context, request, answer);
  };
  const auto cancel = [&](const auto& stub, const std::string& id) {
    Call call;
    v1::CancelJobRequest request;
    request.set_id(id);
    v1::Job answer;
    return stub->CancelJob(&call.context, request, &answer);
  };
  const auto watch = [&](const auto& stub, const std::string& id) {
    Call call;
    v1::WatchJobRequest request;
    request.set_id(id);
    const auto reader = stub->WatchJob(&call.context, request);
    v1::JobEvent event;
    while (reader->Read(&event)) call.context.TryCancel();
    return reader->Finish();
  };
  const auto logs = [&](const auto& stub, const std::string& id) {
    Call call;
    v1::GetJobLogsRequest request;
    request.set_id(id);
    v1::GetJobLogsResponse answer;
    return stub->GetJobLogs(&call.context, request, &answer);
  };
  v1::Job seen;
  // Word for word what a job that never was answers, but for the id.
  const std::string absent = "j-0000000000000000";
  const auto alike = [&](const grpc::Status& foreign, const grpc::Status& none) {
    EXPECT_EQ(foreign.error_code(), grpc::StatusCode::NOT_FOUND);
    std::string message = none.error_message();
    message.replace(message.find(absent), absent.size(), job.id());
    EXPECT_EQ(foreign.error_message(), message);
  };
  alike(get(bob, job.id(), &seen), get(bob, absent, &seen));
  alike(cancel(bob, job.id()), cancel(bob, absent));
  alike(watch(bob, job.id()), watch(bob, absent));
  alike(logs(bob, job.id()), logs(bob, absent));
  EXPECT_TRUE(get(vic, job.id(), &seen).ok());
  EXPECT_TRUE(get(root, job.id(), &seen).ok());

  const auto list = [&](const auto& stub) {
    Call call;
    v1::ListJobsResponse response;
    EXPECT_TRUE(stub->ListJobs(&call.context, {}, &response).ok());
    return response.jobs_size();
  };
  EXPECT_EQ(list(bob), 0);
  EXPECT_EQ(list(vic), 1);
  EXPECT_EQ(list(root), 1);

  // His request_id is his own, his data roots are not hers, and on the nodes her job has no name.
  v1::CreateJobRequest request;
  request.set_request_id("nightly");
  *request.mutable_job() = Job();
  {
    Call call;
    ASSERT_TRUE(bob->CreateJob(&call.context, request, &seen).ok());
    EXPECT_NE(seen.id(), job.id());
    EXPECT_EQ(seen.tenant(), "vision");
  }
  {
    // Neither does it meet that of somebody without a tenant, however it is spelt.
    Call call;
    const std::string his = seen.id();
    request.set_request_id("vision/nightly");
    const grpc::Status created = JobsAs("sam")->CreateJob(&call.context, request, &seen);
    ASSERT_TRUE(created.ok()) << created.error_message();
    EXPECT_NE(seen.id(), his);
    EXPECT_EQ(seen.tenant(), "");
  }
  {
    Call call;
    *request.mutable_job() = Job(folder_ / "bob.safetensors");
    request.clear_request_id();
    const grpc::Status outside = bob->CreateJob(&call.context, request, &seen);
    EXPECT_EQ(outside.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(outside.error_message(), ::testing::Not(HasSubstr("search")));
  }
  const auto busy = [&](const std::string& user) {
    Call call;
    v1::ListNodesResponse nodes;
    EXPECT_TRUE(ClusterAs(user)->ListNodes(&call.context, {}, &nodes).ok());
    std::set<std::string> jobs;
    for (const v1::NodeDevice& device : nodes.nodes(0).devices()) jobs.insert(device.job());
    return jobs;
  };
  EXPECT_THAT(busy("vic"), ::testing::Contains(job.id()));
  EXPECT_THAT(busy("bob"), ::testing::Not(::testing::Contains(job.id())));
  EXPECT_THAT(busy("bob"), ::testing::Contains("other"));
  EXPECT_TRUE(cancel(root, job.id()).ok());
  EXPECT_THAT(ReadAll(folder_ / "audit"), HasSubstr("\"who\":\"root\""));
}

TEST_F(SecurityTest, HealthNeedsNoToken) {
  const auto health = grpc::health::v1::Health::NewStub(grpc::CreateChannel(server_->address(), As("")));
  Call call;
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(health->Check(&call.context, {}, &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

using ClearTest = CoordinatorTest;

TEST_F(ClearTest, ANodeSpeaksForItsOwnRanksOnly) {
  auto worker = Worker({.node = "a", .hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  auto other = Worker({.node = "b"});
  other->PutBlob(worker->gang(), 0);
  const grpc::Status refused = other->WaitStatus();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(refused.error_message(), HasSubstr("node b does not hold"));
  auto again = Worker({.node = "b"});
  again->FinishAll(worker->gang(), {0, 1});
  EXPECT_EQ(again->WaitStatus().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Get(job.id()).state(), v1::JOB_STATE_RUNNING);
  worker->FinishAll(worker->gang(), {0, 1});
  EXPECT_EQ(WaitEnded(job.id()).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(ClearTest, ANodeAnswersWithTheLogsOfItsOwnRanksOnly) {
  auto worker = Worker({.node = "a"});
  const v1::Job job = Create(Job());
  EXPECT_EQ(WaitEnded(job.id()).state(), v1::JOB_STATE_SUCCEEDED);
  auto other = Worker({.node = "b", .logs_of_rank = 0});
  auto none = Worker({.node = "c", .logs_of_rank = 7});
  Call call;
  v1::GetJobLogsRequest request;
  request.set_id(job.id());
  v1::GetJobLogsResponse response;
  ASSERT_TRUE(jobs_->GetJobLogs(&call.context, request, &response).ok());
  ASSERT_EQ(response.logs_size(), 2);
  for (const v1::RankLog& log : response.logs()) EXPECT_EQ(log.text(), "said by a");
  EXPECT_EQ(other->WaitStatus().error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(none->WaitStatus().error_code(), grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(ClearTest, ANodeTracesTheRanksThatItHeldOnly) {
  auto worker = Worker({.node = "a", .hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  const v1::GangId first = worker->gang();
  worker->FailRank(1, "it broke");
  WaitReason(job.id(), "attempt");
  auto other = Worker({.node = "b", .devices = 1});
  other->SendTrace(first, 0, 1, 1);
  other->Heartbeat(1);
  ASSERT_TRUE(other->WaitHeartbeatAnswer(1));
  worker->SendTrace(first, 0, 0, 1);
  worker->Heartbeat(1);
  ASSERT_TRUE(worker->WaitHeartbeatAnswer(1));
  Call call;
  v1::GetJobTraceRequest request;
  request.set_id(job.id());
  v1::GetJobTraceResponse response;
  ASSERT_TRUE(jobs_->GetJobTrace(&call.context, request, &response).ok());
  ASSERT_EQ(response.chunks_size(), 1);
  EXPECT_EQ(response.chunks(0).number(), 0) << "that of the node which held the rank";
}

}  // namespace
}  // namespace seqpar
