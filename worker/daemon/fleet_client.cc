#include "worker/daemon/fleet_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <random>
#include <thread>

#include "common/base/mutex.h"
#include "common/base/retry.h"
#include "common/job/rpc_status.h"
#include "common/rpc/channel.h"
#include "seqpar/v1/fleet.grpc.pb.h"

namespace seqpar {
namespace {

// A coordinator that comes back must be found while the lease lasts, of which its absence has used up a part:
// within a second, whatever the two pauses below (ours, and gRPC's between two dials) add up to.
constexpr auto kPauseMin = std::chrono::milliseconds(100);
constexpr auto kPauseMax = std::chrono::milliseconds(500);
constexpr int kDialPauseMaxMs = 250;
// gRPC calls it the minimum of a backoff; it is how long one connection may take to be made. A busy machine
// takes its time; one that refuses does so at once.
constexpr auto kConnectTime = std::chrono::milliseconds(2000);
constexpr auto kCloseTimeout = std::chrono::milliseconds(500);

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  // This client paces its attempts itself.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(kConnectTime.count()));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kDialPauseMaxMs);
  // A plan for many ranks is larger than gRPC's default of 4 MiB.
  arguments.SetMaxReceiveMessageSize(256 << 20);
  arguments.SetMaxSendMessageSize(256 << 20);
  return arguments;
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::UnavailableError("the coordinator closed the stream");
  return StatusFromRpc(status.error_code(), status.error_message(), status.error_details());
}

}  // namespace

class FleetClient::Impl {
 public:
  Impl(const std::string& coordinator, const ClientTls& tls, std::function<void(FleetEvent)> on_event)
      : coordinator_(coordinator), tls_(tls), on_event_(std::move(on_event)), runner_([this] { Run(); }) {}

  ~Impl() {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
      const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return done_; };
      if (!changed_.wait_for(mutex_, kCloseTimeout, done) && context_ != nullptr) context_->TryCancel();
    }
    runner_.join();
  }

  void Send(int64_t stream, const v1::WorkerMessage& message) {
    MutexLock lock(mutex_);
    if (stream != stream_ || context_ == nullptr) return;
    queue_.push_back(message);
    changed_.notify_all();
  }

  void Break(int64_t stream, const absl::Status& why) {
    MutexLock lock(mutex_);
    if (stream != stream_ || context_ == nullptr) return;
    broken_ = why;
    context_->TryCancel();
  }

 private:
  using Stream = grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>;

  void Run() {
    std::minstd_rand random(std::random_device{}());
    auto pause = kPauseMin;
    std::shared_ptr<grpc::Channel> channel;
    while (true) {
      if (channel == nullptr) channel = MakeChannel(coordinator_, tls_, Arguments());
      WaitOutFailure(*channel, kConnectTime, [this] { return Stopping(); });
      const StreamEnd end = RunStream(channel);
      if (end.heard) pause = kPauseMin;
      if (absl::IsUnauthenticated(end.error)) channel = nullptr;
      const std::chrono::milliseconds asked = std::chrono::seconds(RetrySecondsOf(end.error));
      // A coordinator that has too much to do says after how long it may be asked again.
      const auto jittered = asked + std::chrono::milliseconds(std::uniform_int_distribution<int64_t>(
                                        pause.count() / 2, pause.count())(random));
      pause = std::min(2 * pause, kPauseMax);
      MutexLock lock(mutex_);
      const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; };
      if (changed_.wait_for(mutex_, jittered, stopping)) {
        done_ = true;
        changed_.notify_all();
        return;
      }
    }
  }

  bool Stopping() {
    MutexLock lock(mutex_);
    return stopping_;
  }

  struct StreamEnd {
    bool heard = false;  // the coordinator said anything
    absl::Status error;  // of the coordinator
  };
  // One stream from its beginning to its end.
  StreamEnd RunStream(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    FleetEvent event;
    {
      MutexLock lock(mutex_);
      if (stopping_) return {};
      event.stream = ++stream_;
      queue_.clear();
      broken_ = absl::OkStatus();
      context_ = &context;
      ended_ = false;
    }
    const std::unique_ptr<v1::FleetService::Stub> stub = v1::FleetService::NewStub(channel);
    const std::unique_ptr<Stream> stream = stub->Attach(&context);
    event.kind = FleetEvent::Kind::kConnected;
    on_event_(event);
    std::thread writer([this, &stream] { Write(stream.get()); });

    StreamEnd end;
    event.kind = FleetEvent::Kind::kMessage;
    while (stream->Read(&event.message)) {
      end.heard = true;
      on_event_(event);
    }
    {
      MutexLock lock(mutex_);
      ended_ = true;
      changed_.notify_all();
    }
    writer.join();
    end.error = event.error = FromGrpc(stream->Finish());
    {
      MutexLock lock(mutex_);
      context_ = nullptr;
      if (!broken_.ok()) event.error = broken_;
    }
    event.kind = FleetEvent::Kind::kBroken;
    event.message.Clear();
    on_event_(event);
    return end;
  }

  // Writes what is queued until the stream has ended, or all is written and the client stops.
  void Write(Stream* stream) {
    while (true) {
      v1::WorkerMessage message;
      {
        MutexLock lock(mutex_);
        while (!ended_ && !stopping_ && queue_.empty()) changed_.wait(mutex_);
        if (ended_) return;
        if (queue_.empty()) break;  // stopping
        message = std::move(queue_.front());
        queue_.pop_front();
      }
      if (!stream->Write(message)) return;  // Read ends too
    }
    stream->WritesDone();
  }

  const std::string coordinator_;
  const ClientTls tls_;
  const std::function<void(FleetEvent)> on_event_;

  Mutex mutex_;
  ConditionVariable changed_;
  std::deque<v1::WorkerMessage> queue_ ABSL_GUARDED_BY(mutex_);
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;  // of the open stream
  int64_t stream_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread runner_;  // last: uses all of the above
};

FleetClient::FleetClient(const std::string& coordinator, const ClientTls& tls,
                         std::function<void(FleetEvent)> on_event)
    : impl_(std::make_unique<Impl>(coordinator, tls, std::move(on_event))) {}

FleetClient::~FleetClient() = default;

void FleetClient::Send(int64_t stream, const v1::WorkerMessage& message) { impl_->Send(stream, message); }

void FleetClient::Break(int64_t stream, const absl::Status& why) { impl_->Break(stream, why); }

}  // namespace seqpar
