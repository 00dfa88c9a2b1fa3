#include "worker/daemon/faulty_ports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/status.h"
#include "tests/support/armed_failpoints.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Keeps what reaches it, in words.
class Stream : public FleetSender {
 public:
  void Send(const v1::WorkerMessage& message) override {
    seen.push_back(message.has_hello() ? "hello" : (message.has_heartbeat() ? "heartbeat" : "event"));
  }
  void Break(const absl::Status&) override { seen.emplace_back("break"); }
  std::vector<std::string> seen;
};

class Executors : public ExecutorHost {
 public:
  absl::Status Start(const RankKey&, const v1::Run&) override {
    seen.emplace_back("start");
    return absl::OkStatus();
  }
  void Send(const RankKey&, const v1::ToExecutor& message) override {
    seen.push_back(message.has_lease() ? "lease" : (message.has_blobs() ? "table" : "abort"));
  }
  void Kill(const RankKey&) override { seen.emplace_back("kill"); }
  std::vector<std::string> seen;
};

v1::WorkerMessage Hello() {
  v1::WorkerMessage message;
  message.mutable_hello();
  return message;
}
v1::WorkerMessage Heartbeat() {
  v1::WorkerMessage message;
  message.mutable_heartbeat();
  return message;
}
v1::WorkerMessage Event(v1::RankEvent::Kind kind) {
  v1::WorkerMessage message;
  message.mutable_event()->set_kind(kind);
  return message;
}

class FaultyPortsTest : public ::testing::Test {
 protected:
  Stream stream_;
  Executors executors_;
  FaultyPorts ports_{&executors_, &stream_};
};

TEST_F(FaultyPortsTest, WithoutFailpointsTheyAreNotThere) {
  EXPECT_EQ(ports_.host(), &executors_);
  EXPECT_EQ(ports_.fleet(), &stream_);
  v1::CoordinatorMessage start;
  start.mutable_start();
  EXPECT_FALSE(ports_.Loses(1, start));
}

TEST_F(FaultyPortsTest, WithAMessageGoesAllThatFollowsOnItsStream) {
  const ArmedFailpoints failpoints;
  failpoints.Arm("daemon.send.finished", "drop_request");
  FleetSender* const fleet = ports_.fleet();
  fleet->Send(Hello());
  fleet->Send(Event(v1::RankEvent::STARTED));
  fleet->Send(Event(v1::RankEvent::FINISHED));
  // An answer to this one would tell the daemon that the event had arrived.
  fleet->Send(Heartbeat());
  EXPECT_THAT(stream_.seen, ElementsAre("hello", "event", "break"));
  fleet->Send(Hello());  // of the next stream
  fleet->Send(Event(v1::RankEvent::FINISHED));
  EXPECT_THAT(stream_.seen, ElementsAre("hello", "event", "break", "hello", "event"));
}

TEST_F(FaultyPortsTest, NothingIsHeardBehindAMessageThatWasLost) {
  const ArmedFailpoints failpoints;
  failpoints.Arm("daemon.receive.launch", "drop_request");
  v1::CoordinatorMessage start, stop;
  start.mutable_start();
  stop.mutable_stop();
  EXPECT_FALSE(ports_.Loses(7, stop));
  EXPECT_TRUE(ports_.Loses(7, start));
  EXPECT_TRUE(ports_.Loses(7, stop));
  EXPECT_THAT(stream_.seen, ElementsAre("break"));
  EXPECT_FALSE(ports_.Loses(8, stop));
  EXPECT_FALSE(ports_.Loses(8, start)) << "it was taken";
}

TEST_F(FaultyPortsTest, ExecutorsDoNotStartOrDoNotHear) {
  const ArmedFailpoints failpoints;
  ExecutorHost* const host = ports_.host();
  failpoints.Arm("daemon.executor.start", "error");
  EXPECT_EQ(ReasonOf(host->Start({}, {})), reason::kRankFailed);
  EXPECT_THAT(executors_.seen, IsEmpty());
  EXPECT_TRUE(host->Start({}, {}).ok());
  v1::ToExecutor lease, abort;
  lease.mutable_lease();
  abort.mutable_abort();
  failpoints.Arm("daemon.tell.lease", "drop_request");
  host->Send({}, lease);
  host->Send({}, abort);
  host->Send({}, lease);
  host->Kill({});
  EXPECT_THAT(executors_.seen, ElementsAre("start", "abort", "lease", "kill"));
}

}  // namespace
}  // namespace seqpar
