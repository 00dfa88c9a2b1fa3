// Health by full service name, reflection, and a shutdown that ends open streams.
#include <chrono>
#include <map>
#include <set>

#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "tests/coordinator/api/coordinator_fixture.h"

namespace seqpar {
namespace {

using HealthTest = CoordinatorTest;

TEST_F(HealthTest, EveryServiceIsServing) {
  const auto channel = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  const auto health = grpc::health::v1::Health::NewStub(channel);
  for (const char* name :
       {"", "seqpar.v1.JobService", "seqpar.v1.ClusterService", "seqpar.v1.FleetService"}) {
    Call call;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    grpc::health::v1::HealthCheckResponse response;
    ASSERT_TRUE(health->Check(&call.context, request, &response).ok()) << name;
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING) << name;
  }
}

TEST_F(HealthTest, ShutdownEndsEveryOpenStream) {
  const auto channel = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  const auto health = grpc::health::v1::Health::NewStub(channel);
  Call health_call;
  auto health_stream = health->Watch(&health_call.context, {});
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(health_stream->Read(&response));

  auto worker = Worker({.hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  Call call;
  v1::WatchJobRequest request;
  request.set_id(job.id());
  auto watch = jobs_->WatchJob(&call.context, request);
  v1::JobEvent event;
  ASSERT_TRUE(watch->Read(&event));

  server_->Shutdown();
  ASSERT_TRUE(health_stream->Read(&response));
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);
  while (watch->Read(&event)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  worker->WaitEnded();
  health_call.context.TryCancel();
  health_stream->Finish();
}

TEST_F(HealthTest, EveryServiceSaysThatItStopsWhileCallsAreStillAnswered) {
  const auto channel = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  const auto health = grpc::health::v1::Health::NewStub(channel);
  struct Watch {
    Call call;
    std::unique_ptr<grpc::ClientReader<grpc::health::v1::HealthCheckResponse>> reader;
  };
  std::map<std::string, Watch> watches;
  grpc::health::v1::HealthCheckResponse response;
  for (const char* name : {"seqpar.v1.JobService", "seqpar.v1.ClusterService", "seqpar.v1.FleetService"}) {
    Watch& watch = watches[name];
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    watch.reader = health->Watch(&watch.call.context, request);
    ASSERT_TRUE(watch.reader->Read(&response));
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING) << name;
  }
  // A call on a name that nobody serves is told so.
  Call unknown;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("seqpar.v1.NoSuchService");
  EXPECT_EQ(health->Check(&unknown.context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);

  server_->Shutdown();
  for (auto& [name, watch] : watches) {
    ASSERT_TRUE(watch.reader->Read(&response)) << name << ": the stream ended without a word";
    EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING) << name;
    watch.call.context.TryCancel();
    watch.reader->Finish();
  }
}

TEST_F(HealthTest, ReflectionNamesEveryServiceAndDescribesIt) {
  namespace reflection = grpc::reflection::v1alpha;
  const auto channel = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
  const auto stub = reflection::ServerReflection::NewStub(channel);
  Call call;
  const auto stream = stub->ServerReflectionInfo(&call.context);
  reflection::ServerReflectionRequest request;
  reflection::ServerReflectionResponse response;
  request.set_list_services("");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  std::set<std::string> names;
  for (const auto& service : response.list_services_response().service()) names.insert(service.name());
  for (const char* name : {"seqpar.v1.JobService", "seqpar.v1.ClusterService", "seqpar.v1.FleetService",
                           "grpc.health.v1.Health"}) {
    EXPECT_EQ(names.count(name), 1u) << name;
  }
  request.set_file_containing_symbol("seqpar.v1.JobService.WatchJob");
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_GE(response.file_descriptor_response().file_descriptor_proto_size(), 1)
      << response.ShortDebugString();
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(HealthTest, AnAddressInUseIsRefused) {
  CoordinatorConfig config;
  config.listen = server_->address();
  config.state_dir = folder_ / "another state";
  const auto second = CoordinatorServer::Create(config, &clock_, [](const absl::Status&) {});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), ::testing::HasSubstr(server_->address()));
}

}  // namespace
}  // namespace seqpar
