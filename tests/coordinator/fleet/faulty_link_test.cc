#include "coordinator/fleet/faulty_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/armed_failpoints.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;

// Keeps what reaches it, in words.
class Link : public NodeLink {
 public:
  void Send(v1::CoordinatorMessage message) override {
    seen.push_back(message.has_start() ? "launch" : "stop");
  }
  void Close(const absl::Status& why) override { seen.push_back("close " + std::string(why.message())); }
  std::vector<std::string> seen;
};

TEST(FaultyLink, AMessageThatIsDroppedClosesIt) {
  const ArmedFailpoints failpoints;
  const auto real = std::make_shared<Link>();
  const std::shared_ptr<NodeLink> link = MakeFaultyLink(real);
  v1::CoordinatorMessage launch, stop;
  launch.mutable_start();
  stop.mutable_stop();
  failpoints.Arm("coordinator.send.launch", "drop_request");
  link->Send(stop);
  link->Send(launch);
  EXPECT_THAT(real->seen, ElementsAre("stop", "close a message was lost (failpoint)"));
}

TEST(FaultyLink, EachKindOfMessageHasItsPoint) {
  const ArmedFailpoints failpoints;
  v1::WorkerMessage hello, heartbeat, blob;
  hello.mutable_hello();
  heartbeat.mutable_heartbeat();
  blob.mutable_blob();
  const auto event = [](v1::RankEvent::Kind kind) {
    v1::WorkerMessage message;
    message.mutable_event()->set_kind(kind);
    return message;
  };
  const std::vector<std::pair<std::string, v1::WorkerMessage>> points = {
      {"hello", hello},
      {"heartbeat", heartbeat},
      {"blob", blob},
      {"started", event(v1::RankEvent::STARTED)},
      {"checkpoint", event(v1::RankEvent::CHECKPOINTED)},
      {"finished", event(v1::RankEvent::FINISHED)},
      {"failed", event(v1::RankEvent::FAILED)},
      {"stopped", event(v1::RankEvent::STOPPED)},
  };
  for (const auto& [name, message] : points) {
    failpoints.Arm("coordinator.receive." + name, "drop_request");
    for (const auto& [other, its] : points) {
      EXPECT_EQ(IsLost(its), other == name) << other << " where " << name << " is armed";
    }
  }
}

}  // namespace
}  // namespace seqpar
