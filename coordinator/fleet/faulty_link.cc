#include "coordinator/fleet/faulty_link.h"

#include <utility>

#include "common/base/failpoints.h"

namespace seqpar {
namespace {

FailpointSubject About(const v1::GangId& gang, int rank = -1) { return {gang.job(), gang.attempt(), rank}; }

class FaultyLink : public NodeLink {
 public:
  explicit FaultyLink(std::shared_ptr<NodeLink> link) : link_(std::move(link)) {}

  void Send(v1::CoordinatorMessage message) override {
    using Message = v1::CoordinatorMessage;
    switch (message.message_case()) {
      case Message::kWelcome:
        return Pass("coordinator.send.welcome", {}, std::move(message));
      case Message::kHeartbeat:
        return Pass("coordinator.send.heartbeat", {}, std::move(message));
      case Message::kStart:
        return Pass("coordinator.send.launch", About(message.start().gang()), std::move(message));
      case Message::kBlobs:
        return Pass("coordinator.send.table", About(message.blobs().gang()), std::move(message));
      case Message::kStop:
        return Pass("coordinator.send.stop", About(message.stop().gang()), std::move(message));
      default:
        return link_->Send(std::move(message));
    }
  }
  void Close(const absl::Status& why) override { link_->Close(why); }

 private:
  void Pass(const char* name, const FailpointSubject& subject, v1::CoordinatorMessage&& message) {
    const HandOverFailpoint point(name, subject);
    if (point.drops_request()) return link_->Close(absl::UnavailableError("a message was lost (failpoint)"));
    link_->Send(std::move(message));
  }

  const std::shared_ptr<NodeLink> link_;
};

const char* PointOf(v1::RankEvent::Kind kind) {
  switch (kind) {
    case v1::RankEvent::STARTED:
      return "coordinator.receive.started";
    case v1::RankEvent::CHECKPOINTED:
      return "coordinator.receive.checkpoint";
    case v1::RankEvent::FINISHED:
      return "coordinator.receive.finished";
    case v1::RankEvent::FAILED:
      return "coordinator.receive.failed";
    case v1::RankEvent::STOPPED:
      return "coordinator.receive.stopped";
    default:
      return nullptr;
  }
}

bool Passes(const char* name, const FailpointSubject& subject) {
  return name != nullptr && HandOverFailpoint(name, subject).drops_request();
}

}  // namespace

std::shared_ptr<NodeLink> MakeFaultyLink(std::shared_ptr<NodeLink> link) {
  return std::make_shared<FaultyLink>(std::move(link));
}

bool IsLost(const v1::WorkerMessage& message) {
  switch (message.message_case()) {
    case v1::WorkerMessage::kHello:
      return Passes("coordinator.receive.hello", {});
    case v1::WorkerMessage::kHeartbeat:
      return Passes("coordinator.receive.heartbeat", {});
    case v1::WorkerMessage::kBlob:
      return Passes("coordinator.receive.blob", About(message.blob().gang(), message.blob().rank()));
    case v1::WorkerMessage::kEvent:
      return Passes(PointOf(message.event().kind()), About(message.event().gang(), message.event().rank()));
    default:
      return false;
  }
}

}  // namespace seqpar
