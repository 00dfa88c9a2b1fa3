// What a coordinator and executors may say to a worker's daemon, in any order. Whatever they say, no two
// ranks run on one device, nothing runs twice, and after a shutdown and their exits nothing runs.
#include <map>
#include <set>
#include <utility>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "tests/fuzz/inputs.pb.h"
#include "tests/fuzz/message_target.h"
#include "tests/fuzz/quiet.h"
#include "worker/daemon/device_gate.h"
#include "worker/daemon/node_agent.h"

namespace seqpar {
namespace {

class Host : public ExecutorHost {
 public:
  absl::Status Start(const RankKey& key, const v1::Run& run) override {
    SEQPAR_CHECK(run.start().ranks_size() == 1);
    const int device = run.start().ranks(0).device();
    for (const auto& [other, used] : running) SEQPAR_CHECK(used != device);
    SEQPAR_CHECK(running.emplace(key, device).second);
    return absl::OkStatus();
  }
  void Send(const RankKey& key, const v1::ToExecutor&) override { SEQPAR_CHECK(running.count(key) != 0); }
  void Kill(const RankKey& key) override { SEQPAR_CHECK(running.count(key) != 0); }

  std::map<RankKey, int> running;
};

class Fleet : public FleetSender {
 public:
  void Send(const v1::WorkerMessage& message) override {
    SEQPAR_CHECK(message.message_case() != v1::WorkerMessage::MESSAGE_NOT_SET);
    if (message.has_event() && message.event().kind() == v1::RankEvent::FAILED) {
      SEQPAR_CHECK(message.event().error().code() != 0);
    }
  }
  void Break(const absl::Status& why) override {
    SEQPAR_CHECK(!why.ok());
    broken = true;
  }
  bool broken = false;
};

void Tell(const fuzz::WorkerStory& story) {
  BeQuiet();
  FakeClock clock;
  Host host;
  Fleet fleet;
  OpenGate gate;
  NodeIdentity identity;
  identity.hello.set_node("node-a");
  for (int i = 0; i < 3; ++i) identity.hello.add_devices()->set_kind("cpu");
  NodeAgent agent(identity, &clock, &host, &fleet, &gate);
  bool connected = false;
  const auto exits = [&](const RankKey& key) {
    if (host.running.erase(key) != 0) agent.OnExecutorExit(key, {"exited with code 1"});
  };
  for (const fuzz::WorkerStep& step : story.steps()) {
    switch (step.step_case()) {
      case fuzz::WorkerStep::kFromCoordinator:
        if (connected) agent.OnMessage(step.from_coordinator());
        break;
      case fuzz::WorkerStep::kFromExecutor: {
        const fuzz::FromRank& from = step.from_executor();
        const RankKey key{from.job(), from.attempt(), from.rank()};
        if (host.running.count(key) != 0) agent.OnExecutorMessage(key, from.message());
        break;
      }
      case fuzz::WorkerStep::kExits:
        exits({step.exits().job(), step.exits().attempt(), step.exits().rank()});
        break;
      case fuzz::WorkerStep::kConnected:
        if (connected) agent.OnDisconnected();
        connected = step.connected();
        if (connected) agent.OnConnected();
        break;
      case fuzz::WorkerStep::kAdvanceMs:
        if (step.advance_ms() > 0 && step.advance_ms() < 3'600'000)
          clock.AdvanceMicros(step.advance_ms() * 1000);
        break;
      case fuzz::WorkerStep::kDrain:
        agent.BeginDrain();
        break;
      case fuzz::WorkerStep::kShutdown:
        agent.BeginShutdown();
        break;
      case fuzz::WorkerStep::STEP_NOT_SET:
        break;
    }
    agent.Tick();
    if (std::exchange(fleet.broken, false) && std::exchange(connected, false)) agent.OnDisconnected();
  }
  agent.BeginShutdown();
  while (!host.running.empty()) exits(RankKey(host.running.begin()->first));
  SEQPAR_CHECK(agent.Idle());
}

}  // namespace
}  // namespace seqpar

SEQPAR_FUZZ_MESSAGE(seqpar::fuzz::WorkerStory, seqpar::Tell)
