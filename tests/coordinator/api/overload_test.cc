// More calls than may wait for an answer: each further one is refused, streams too, and told when to try
// again.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/api/call_gate.h"
#include "coordinator/api/services.h"
#include "google/rpc/error_details.pb.h"
#include "seqpar/v1/service.grpc.pb.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

// Services whose pool has one thread, which is busy, and one call that waits for it. Nothing is answered, so
// there is nothing behind them.
class OverloadTest : public ::testing::Test {
 protected:
  OverloadTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    for (grpc::Service* service : services_.services()) builder.RegisterService(service);
    server_ = builder.BuildAndStart();
    jobs_ = v1::JobService::NewStub(
        grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
    std::promise<void> busy;
    pool_.Run([this, &busy] {
      busy.set_value();
      go_.get_future().wait();
    });
    busy.get_future().wait();
    pool_.Run([] {});
  }
  ~OverloadTest() override {
    go_.set_value();
    server_->Shutdown();
  }

  static void ExpectRefused(const grpc::Status& status) {
    google::rpc::Status details;
    ASSERT_TRUE(details.ParseFromString(status.error_details())) << status.error_message();
    const absl::Status refused = StatusFromProto(details);
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(ReasonOf(refused), reason::kOverloaded);
    EXPECT_GT(RetrySecondsOf(refused), 0);
  }

  std::promise<void> go_;
  const std::unique_ptr<AuditLog> audit_ = *AuditLog::Open("", &Clock::System());
  const CallGate gate_{nullptr, audit_.get()};
  TaskPool pool_{1, /*queue_max=*/1};
  ApiServices services_{nullptr, &pool_, &gate_};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
};

TEST_F(OverloadTest, ACallIsRefused) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + TestSeconds(30));
  v1::Job job;
  ExpectRefused(jobs_->GetJob(&context, {}, &job));
}

TEST_F(OverloadTest, AStreamIsRefused) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + TestSeconds(30));
  const auto reader = jobs_->WatchJob(&context, {});
  v1::JobEvent event;
  EXPECT_FALSE(reader->Read(&event));
  ExpectRefused(reader->Finish());
}

}  // namespace
}  // namespace seqpar
