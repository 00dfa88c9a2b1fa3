// The stream to a coordinator, and what is between one and the next.
#include "worker/daemon/fleet_client.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "seqpar/v1/fleet.grpc.pb.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Ends every stream with the same error at once, and notes when it was asked, and over which connection.
class BusyCoordinator : public v1::FleetService::Service {
 public:
  explicit BusyCoordinator(const absl::Status& error) : error_(error) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~BusyCoordinator() override { server_->Shutdown(); }

  grpc::Status Attach(grpc::ServerContext* context,
                      grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>*) override {
    MutexLock lock(mutex_);
    asked_.push_back({SteadyClock::now(), context->peer()});
    changed_.notify_all();
    return grpc::Status(static_cast<grpc::StatusCode>(error_.code()), std::string(error_.message()),
                        StatusToProto(error_).SerializeAsString());
  }

  struct Asked {
    SteadyClock::time_point at;
    std::string peer;
  };
  // How the first `count` streams came; fewer where they did not within a minute.
  std::vector<Asked> WaitAsked(size_t count) {
    MutexLock lock(mutex_);
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return asked_.size() >= count; };
    changed_.wait_for(mutex_, TestSeconds(60), enough);
    return asked_;
  }
  const std::string& address() const { return address_; }

 private:
  const absl::Status error_;
  Mutex mutex_;
  ConditionVariable changed_;
  std::vector<Asked> asked_ ABSL_GUARDED_BY(mutex_);
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

TEST(FleetClient, DialsAgainAfterTheTimeThatItIsTold) {
  BusyCoordinator coordinator(
      WithRetry(MakeError(absl::StatusCode::kResourceExhausted, reason::kOverloaded, "too much to do"), 1));
  Mutex mutex;
  std::vector<absl::Status> ends;
  std::vector<BusyCoordinator::Asked> asked;
  {
    FleetClient client(coordinator.address(), {}, [&](FleetEvent event) {
      MutexLock lock(mutex);
      if (event.kind == FleetEvent::Kind::kBroken) ends.push_back(event.error);
    });
    asked = coordinator.WaitAsked(3);
  }
  ASSERT_GE(asked.size(), 3u);
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_GE(asked[i].at - asked[i - 1].at, std::chrono::seconds(1));
    EXPECT_EQ(asked[i].peer, asked[0].peer) << "another connection";
  }
  ASSERT_FALSE(ends.empty());
  EXPECT_EQ(ReasonOf(ends[0]), reason::kOverloaded) << "and the worker's log says why";
}

// A connection is known by the certificate that it was made with, which may have been renewed since.
TEST(FleetClient, MakesANewConnectionWhereTheOldOneIsNotBelieved) {
  BusyCoordinator coordinator(
      MakeError(absl::StatusCode::kUnauthenticated, reason::kUnauthenticated, "its certificate has expired"));
  FleetClient client(coordinator.address(), {}, [](const FleetEvent&) {});
  const std::vector<BusyCoordinator::Asked> asked = coordinator.WaitAsked(3);
  ASSERT_GE(asked.size(), 3u);
  EXPECT_NE(asked[1].peer, asked[0].peer);
  EXPECT_NE(asked[2].peer, asked[1].peer);
}

}  // namespace
}  // namespace seqpar
