#include "client/lib/client.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "common/job/proto.h"
#include "seqpar/v1/service.grpc.pb.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      StatusToProto(status).SerializeAsString());
}

// Answers by the id that is asked for.
class FakeJobService : public v1::JobService::Service {
 public:
  grpc::Status CreateJob(grpc::ServerContext*, const v1::CreateJobRequest* request, v1::Job*) override {
    return ToGrpc(InvalidInput(reason::kInvalidJob,
                               {{"config.head_dim", "must be even", "64"}, {"name", "is long", ""}}));
  }
  grpc::Status GetJob(grpc::ServerContext* context, const v1::GetJobRequest* request, v1::Job* job) override {
    if (request->id() == "missing") {
      return ToGrpc(MakeError(absl::StatusCode::kNotFound, reason::kNotFound, "no job missing"));
    }
    if (request->id() == "bare") return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
    if (request->id() == "stuck") {
      while (!context->IsCancelled()) std::this_thread::yield();
      return grpc::Status::CANCELLED;
    }
    if (request->id() == "large") {
      job->mutable_report()->set_reason(std::string(8 << 20, 'x'));
      return grpc::Status::OK;
    }
    job->set_id(request->id());
    return grpc::Status::OK;
  }
  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    for (int64_t revision = request->revision() + 1; revision <= request->revision() + 3; ++revision) {
      v1::JobEvent event;
      event.set_revision(revision);
      writer->Write(event);
    }
    if (request->id() == "silent") {
      while (!context->IsCancelled()) std::this_thread::yield();
      return grpc::Status::CANCELLED;
    }
    return grpc::Status::OK;
  }
};

class ClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&jobs_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    options_.server = "127.0.0.1:" + std::to_string(port);
  }
  absl::StatusOr<v1::Job> Get(const std::string& id) {
    v1::GetJobRequest request;
    request.set_id(id);
    return ConnectService(options_)->GetJob(request);
  }

  FakeJobService jobs_;
  std::unique_ptr<grpc::Server> server_;
  ClientOptions options_;
};

TEST_F(ClientTest, AnswersCarryTheMessage) { EXPECT_EQ(Get("j-1")->id(), "j-1"); }

TEST_F(ClientTest, ErrorsKeepReasonAndViolations) {
  const absl::Status missing = Get("missing").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(missing), reason::kNotFound);
  const absl::Status invalid = ConnectService(options_)->CreateJob(v1::CreateJobRequest()).status();
  EXPECT_EQ(invalid.code(), absl::StatusCode::kInvalidArgument);
  const std::vector<Violation> violations = ViolationsOf(invalid);
  ASSERT_EQ(violations.size(), 2u);
  EXPECT_EQ(violations[0].field, "config.head_dim");
  EXPECT_EQ(violations[0].nearest, "64");
}

TEST_F(ClientTest, ErrorsWithoutDetailsKeepTheirCode) {
  const absl::Status bare = Get("bare").status();
  EXPECT_EQ(bare.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(bare.message(), "draining");
  EXPECT_EQ(ReasonOf(bare), "");
}

TEST_F(ClientTest, EveryCallHasADeadline) {
  options_.timeout_seconds = 0.1;
  EXPECT_EQ(Get("stuck").status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, AServerThatIsNotThereIsUnavailableAtOnce) {
  server_->Shutdown();
  EXPECT_EQ(Get("j-1").status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, LargeAnswersArrive) {
  const absl::StatusOr<v1::Job> job = Get("large");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->report().reason().size(), size_t{8} << 20);
}

TEST_F(ClientTest, WatchEndsWithTheStreamTheCallerOrItsBound) {
  const auto watch = [&](const std::string& id, double seconds, size_t stop_after,
                         std::vector<int64_t>* seen) {
    v1::WatchJobRequest request;
    request.set_id(id);
    request.set_revision(4);
    return ConnectService(options_)->WatchJob(request, seconds, [&](const v1::JobEvent& event) {
      seen->push_back(event.revision());
      return seen->size() < stop_after;
    });
  };
  std::vector<int64_t> all, two, silent;
  EXPECT_TRUE(watch("j-1", 60, 10, &all).ok());
  EXPECT_THAT(all, ElementsAre(5, 6, 7));
  EXPECT_TRUE(watch("silent", 60, 2, &two).ok());
  EXPECT_THAT(two, ElementsAre(5, 6));
  EXPECT_EQ(watch("silent", 0.2, 10, &silent).code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace seqpar
