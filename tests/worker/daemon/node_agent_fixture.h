// A node's agent with everything around it faked, and what tests of it say and ask.
#ifndef SEQPAR_TESTS_WORKER_DAEMON_NODE_AGENT_FIXTURE_H_
#define SEQPAR_TESTS_WORKER_DAEMON_NODE_AGENT_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "tests/worker/daemon/agent_fakes.h"
#include "worker/daemon/node_agent.h"

namespace seqpar {

class NodeAgentTest : public ::testing::Test {
 protected:
  static constexpr int64_t kSecond = 1'000'000;

  NodeAgentTest() : agent_(Identity(), &clock_, &host_, &fleet_, &gate_, &observer_) {}

  static NodeIdentity Identity() {
    NodeIdentity identity;
    identity.hello.set_node("node-a");
    for (int i = 0; i < 2; ++i) identity.hello.add_devices()->set_threads(1);
    identity.data_roots = {{"data", "/data"}};
    return identity;
  }

  static v1::GangId Gang(int attempt, int64_t term = 1, const std::string& job = "j") {
    v1::GangId gang;
    gang.set_term(term);
    gang.set_job(job);
    gang.set_attempt(attempt);
    return gang;
  }

  void Welcome(int64_t term = 1, std::vector<v1::GangId> keep = {}) {
    v1::CoordinatorMessage message;
    message.mutable_welcome()->set_term(term);
    message.mutable_welcome()->set_heartbeat_ms(1000);
    message.mutable_welcome()->set_lease_ms(6000);
    for (const v1::GangId& gang : keep) *message.mutable_welcome()->add_keep() = gang;
    agent_.OnMessage(message);
  }

  void Attach() {
    agent_.OnConnected();
    Welcome();
  }

  // Ranks 0, 1, ... on devices 0, 1, ...
  void Start(const v1::GangId& gang, int ranks = 2) {
    v1::CoordinatorMessage message;
    *message.mutable_start()->mutable_gang() = gang;
    for (int rank = 0; rank < ranks; ++rank) {
      v1::StartRanks::Placement* placement = message.mutable_start()->add_ranks();
      placement->set_rank(rank);
      placement->set_device(rank);
    }
    agent_.OnMessage(message);
  }

  void Stop(const v1::GangId& gang, const std::vector<int32_t>& ranks = {}) {
    v1::CoordinatorMessage message;
    *message.mutable_stop()->mutable_gang() = gang;
    message.mutable_stop()->mutable_ranks()->Add(ranks.begin(), ranks.end());
    *message.mutable_stop()->mutable_reason() = StatusToProto(absl::CancelledError("cancelled"));
    agent_.OnMessage(message);
  }

  void AnswerHeartbeat(int64_t sequence) {
    v1::CoordinatorMessage message;
    message.mutable_heartbeat()->set_sequence(sequence);
    agent_.OnMessage(message);
  }

  void Report(const RankKey& key, v1::RankEvent::Kind kind, const absl::Status& error = absl::OkStatus(),
              bool root_cause = false) {
    v1::FromExecutor message;
    message.mutable_event()->set_kind(kind);
    if (!error.ok()) *message.mutable_event()->mutable_error() = StatusToProto(error);
    message.mutable_event()->set_root_cause(root_cause);
    agent_.OnExecutorMessage(key, message);
  }

  // The events sent since the last call: "FAILED j#1/0 root: message".
  std::vector<std::string> TakeEvents() {
    std::vector<std::string> events;
    for (const v1::WorkerMessage& message : fleet_.sent) {
      if (!message.has_event()) continue;
      const v1::RankEvent& event = message.event();
      std::string text = absl::StrCat(v1::RankEvent::Kind_Name(event.kind()), " ",
                                      NameOf({event.gang().job(), event.gang().attempt(), event.rank()}));
      if (event.kind() == v1::RankEvent::FAILED) {
        absl::StrAppend(&text, event.root_cause() ? " root: " : " follows: ", event.error().message());
      }
      events.push_back(text);
    }
    fleet_.sent.clear();
    return events;
  }

  std::vector<std::string> TakeAsked() { return std::exchange(host_.asked, {}); }

  void Advance(int64_t us) {
    clock_.AdvanceMicros(us);
    agent_.Tick();
  }

  FakeClock clock_;
  FakeHost host_;
  FakeObserver observer_;
  FakeFleet fleet_;
  FakeGate gate_;
  NodeAgent agent_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_WORKER_DAEMON_NODE_AGENT_FIXTURE_H_
