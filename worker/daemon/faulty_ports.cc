#include "worker/daemon/faulty_ports.h"

#include "common/base/status.h"

namespace seqpar {
namespace {

FailpointSubject About(const RankKey& key) { return {key.job, key.attempt, key.rank}; }
FailpointSubject About(const v1::GangId& gang, int rank = -1) { return {gang.job(), gang.attempt(), rank}; }

const char* PointOf(v1::RankEvent::Kind kind) {
  switch (kind) {
    case v1::RankEvent::STARTED:
      return "daemon.send.started";
    case v1::RankEvent::CHECKPOINTED:
      return "daemon.send.checkpoint";
    case v1::RankEvent::FINISHED:
      return "daemon.send.finished";
    case v1::RankEvent::FAILED:
      return "daemon.send.failed";
    case v1::RankEvent::STOPPED:
      return "daemon.send.stopped";
    default:
      return nullptr;
  }
}

// Null: it has none.
const char* PointOf(const v1::WorkerMessage& message) {
  switch (message.message_case()) {
    case v1::WorkerMessage::kHello:
      return "daemon.send.hello";
    case v1::WorkerMessage::kHeartbeat:
      return "daemon.send.heartbeat";
    case v1::WorkerMessage::kBlob:
      return "daemon.send.blob";
    case v1::WorkerMessage::kEvent:
      return PointOf(message.event().kind());
    default:
      return nullptr;
  }
}

FailpointSubject SubjectOf(const v1::WorkerMessage& message) {
  if (message.has_blob()) return About(message.blob().gang(), message.blob().rank());
  if (message.has_event()) return About(message.event().gang(), message.event().rank());
  return {};
}

bool Passes(const char* name, const FailpointSubject& subject) {
  return HandOverFailpoint(name, subject).drops_request();
}

bool IsLost(const v1::CoordinatorMessage& message) {
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kWelcome:
      return Passes("daemon.receive.welcome", {});
    case v1::CoordinatorMessage::kHeartbeat:
      return Passes("daemon.receive.heartbeat", {});
    case v1::CoordinatorMessage::kStart:
      return Passes("daemon.receive.launch", About(message.start().gang()));
    case v1::CoordinatorMessage::kBlobs:
      return Passes("daemon.receive.table", About(message.blobs().gang()));
    case v1::CoordinatorMessage::kStop:
      return Passes("daemon.receive.stop", About(message.stop().gang()));
    default:
      return false;
  }
}

}  // namespace

void FaultySender::Send(const v1::WorkerMessage& message) {
  if (message.has_hello()) lost_ = false;  // a new stream's first
  if (lost_) return;
  const char* const name = PointOf(message);
  if (name == nullptr) return fleet_->Send(message);
  const HandOverFailpoint point(name, SubjectOf(message));
  lost_ = point.drops_request();
  if (lost_) return fleet_->Break(absl::UnavailableError("a message was lost (failpoint)"));
  fleet_->Send(message);
}

absl::Status FaultyExecutorHost::Start(const RankKey& key, const v1::Run& run) {
  const HandOverFailpoint point("daemon.executor.start", About(key));
  SEQPAR_RETURN_IF_ERROR(point.error());
  return host_->Start(key, run);
}

void FaultyExecutorHost::Send(const RankKey& key, const v1::ToExecutor& message) {
  const char* const name = message.has_blobs()   ? "daemon.tell.table"
                           : message.has_lease() ? "daemon.tell.lease"
                                                 : "daemon.tell.abort";
  const HandOverFailpoint point(name, About(key));
  if (!point.drops_request()) host_->Send(key, message);
}

void FaultyExecutorHost::Kill(const RankKey& key) {
  PassFailpoint("daemon.kill", About(key));
  host_->Kill(key);
}

bool FaultyPorts::Loses(int64_t stream, const v1::CoordinatorMessage& message) {
  if (!FailpointsOn()) return false;
  if (stream == lost_stream_) return true;
  if (!IsLost(message)) return false;
  lost_stream_ = stream;
  fleet_->Break(absl::UnavailableError("a message was lost (failpoint)"));
  return true;
}

}  // namespace seqpar
