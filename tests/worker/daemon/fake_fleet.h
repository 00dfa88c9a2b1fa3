// A coordinator that does what a test tells it, over the real wire.
#ifndef SEQPAR_TESTS_WORKER_DAEMON_FAKE_FLEET_H_
#define SEQPAR_TESTS_WORKER_DAEMON_FAKE_FLEET_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "seqpar/v1/fleet.grpc.pb.h"
#include "tests/support/time.h"

namespace seqpar {

// Welcomes every worker, answers heartbeats, relays blobs of ranks [0, world), and records what comes. One
// worker at a time.
class FakeFleet : public v1::FleetService::Service {
 public:
  explicit FakeFleet(int world, int64_t lease_ms = 6000) : world_(world), lease_ms_(lease_ms) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeFleet() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  void Send(const v1::CoordinatorMessage& message) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stream_ != nullptr) stream_->Write(message);
  }

  void BreakStream() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }

  // The first recorded message that `wanted` accepts; none after 60 s.
  std::optional<v1::WorkerMessage> WaitFor(const std::function<bool(const v1::WorkerMessage&)>& wanted) {
    std::unique_lock<std::mutex> lock(mutex_);
    std::optional<v1::WorkerMessage> found;
    changed_.wait_for(lock, TestSeconds(60), [&] {
      for (const v1::WorkerMessage& message : received_) {
        if (wanted(message)) found = message;
        if (found.has_value()) return true;
      }
      return false;
    });
    return found;
  }

  std::optional<v1::RankEvent> WaitForEvent(v1::RankEvent::Kind kind, int rank, int attempt = 1) {
    const auto found = WaitFor([&](const v1::WorkerMessage& m) {
      return m.has_event() && m.event().kind() == kind && m.event().rank() == rank &&
             m.event().gang().attempt() == attempt;
    });
    return found.has_value() ? std::optional<v1::RankEvent>(found->event()) : std::nullopt;
  }

  // What to keep in the next Welcome.
  void Keep(const v1::GangId& gang) {
    std::lock_guard<std::mutex> lock(mutex_);
    keep_ = gang;
  }

  grpc::Status Attach(grpc::ServerContext* context,
                      grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>* stream) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stream_ = stream;
      context_ = context;
    }
    v1::WorkerMessage message;
    while (stream->Read(&message)) Handle(message);
    std::lock_guard<std::mutex> lock(mutex_);
    stream_ = nullptr;
    context_ = nullptr;
    return grpc::Status::OK;
  }

 private:
  void Handle(const v1::WorkerMessage& message) {
    std::lock_guard<std::mutex> lock(mutex_);
    received_.push_back(message);
    changed_.notify_all();
    v1::CoordinatorMessage answer;
    if (message.has_hello()) {
      answer.mutable_welcome()->set_term(1);
      answer.mutable_welcome()->set_heartbeat_ms(100);
      answer.mutable_welcome()->set_lease_ms(lease_ms_);
      if (keep_.has_value()) *answer.mutable_welcome()->add_keep() = *keep_;
      stream_->Write(answer);
    } else if (message.has_heartbeat()) {
      answer.mutable_heartbeat()->set_sequence(message.heartbeat().sequence());
      answer.mutable_heartbeat()->set_term(1);
      stream_->Write(answer);
    } else if (message.has_blob()) {
      auto& blobs = blobs_[message.blob().gang().attempt()];
      blobs[message.blob().rank()] = message.blob().data();
      if (static_cast<int>(blobs.size()) < world_) return;
      *answer.mutable_blobs()->mutable_gang() = message.blob().gang();
      answer.mutable_blobs()->set_group(message.blob().group());
      for (const auto& [rank, data] : blobs) answer.mutable_blobs()->add_blobs(data);
      stream_->Write(answer);
    }
  }

  const int world_;
  const int64_t lease_ms_;
  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::WorkerMessage> received_;
  std::map<int, std::map<int, std::string>> blobs_;  // by attempt, then rank
  std::optional<v1::GangId> keep_;
  grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>* stream_ = nullptr;
  grpc::ServerContext* context_ = nullptr;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_WORKER_DAEMON_FAKE_FLEET_H_
