// What stands around a node's agent in its test.
#ifndef SEQPAR_TESTS_WORKER_DAEMON_AGENT_FAKES_H_
#define SEQPAR_TESTS_WORKER_DAEMON_AGENT_FAKES_H_

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/daemon/agent_observer.h"
#include "worker/daemon/device_gate.h"
#include "worker/daemon/node_agent.h"

namespace seqpar {

inline std::string NameOf(const RankKey& key) {
  return absl::StrCat(key.job, "#", key.attempt, "/", key.rank);
}

// Records what it is asked for, in words.
class FakeHost : public ExecutorHost {
 public:
  absl::Status Start(const RankKey& key, const v1::Run& run) override {
    if (!start_error.ok()) return start_error;
    asked.push_back(absl::StrCat("start ", NameOf(key)));
    runs.push_back(run);
    return absl::OkStatus();
  }
  void Send(const RankKey& key, const v1::ToExecutor& message) override {
    if (message.has_abort()) asked.push_back(absl::StrCat("abort ", NameOf(key)));
    if (message.has_blobs()) asked.push_back(absl::StrCat("blobs ", NameOf(key)));
    if (message.has_lease()) lease_deadline_us = message.lease().deadline_us();
  }
  void Kill(const RankKey& key) override { asked.push_back(absl::StrCat("kill ", NameOf(key))); }

  absl::Status start_error;
  std::vector<std::string> asked;
  std::vector<v1::Run> runs;
  int64_t lease_deadline_us = 0;
};

class FakeFleet : public FleetSender {
 public:
  void Send(const v1::WorkerMessage& message) override { sent.push_back(message); }
  void Break(const absl::Status& why) override { broken.emplace_back(why.message()); }

  std::vector<v1::WorkerMessage> sent;
  std::vector<std::string> broken;
};

class FakeGate : public DeviceGate {
 public:
  void Ended(int device, int64_t pid, int64_t) override {
    ended.push_back(absl::StrCat(device, " by ", pid));
    if (checks) states[device] = State::kChecking;
  }
  State StateOf(int device) const override {
    const auto found = states.find(device);
    return found == states.end() ? State::kOpen : found->second;
  }
  std::string WhySetAside(int device) const override {
    return StateOf(device) == State::kSetAside ? "holds memory" : "";
  }

  bool checks = false;
  std::map<int, State> states;
  std::vector<std::string> ended;
};

// What was seen, in words.
class FakeObserver : public AgentObserver {
 public:
  void Draining() override { ++drains; }
  void Attached(bool attached) override { seen.push_back(attached ? "attached" : "alone"); }
  void HeartbeatAnswered(int64_t after_us) override {
    seen.push_back(absl::StrCat("answered after ", after_us));
  }
  void DeviceSetAside(int device, bool aside) override {
    seen.push_back(absl::StrCat("device ", device, aside ? " aside" : " back"));
  }
  void RankStarted(const RankKey& key, int device, const v1::StartRanks&) override {
    seen.push_back(absl::StrCat("started ", NameOf(key), " on ", device));
  }
  void RankProgressed(const RankKey& key, const v1::RankProgress&) override {
    seen.push_back(absl::StrCat("progressed ", NameOf(key)));
  }
  void RankReported(const RankKey& key, const v1::RankEvent&) override {
    seen.push_back(absl::StrCat("reported ", NameOf(key)));
  }
  void RankEnded(const RankKey& key) override { seen.push_back(absl::StrCat("ended ", NameOf(key))); }

  std::vector<std::string> seen;
  int drains = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_WORKER_DAEMON_AGENT_FAKES_H_
