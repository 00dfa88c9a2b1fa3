// What a worker daemon decides: it follows the coordinator's commands, watches its executors, and says what
// became of them. No thread, no socket, no clock of its own: the daemon's loop feeds it and carries out what
// it asks for.
#ifndef SEQPAR_WORKER_DAEMON_NODE_AGENT_H_
#define SEQPAR_WORKER_DAEMON_NODE_AGENT_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/clock_offset.h"
#include "seqpar/v1/executor.pb.h"
#include "seqpar/v1/fleet.pb.h"
#include "worker/daemon/agent_observer.h"
#include "worker/daemon/device_gate.h"
#include "worker/daemon/fence.h"
#include "worker/daemon/lease.h"
#include "worker/daemon/log_store.h"

namespace seqpar {

// How a process ended.
struct ExecutorExit {
  std::string how;  // "exited with code 1", "was killed by signal 9 (Killed)"
  // It ended itself: its lease was over by its own clock, which is not the daemon's.
  bool lease_over = false;
  int64_t pid = 0;  // 0: not known
};

// The executor processes, one a rank.
class ExecutorHost {
 public:
  virtual ~ExecutorHost() = default;
  // Starts a process and sends it `run`. An error: there is none.
  virtual absl::Status Start(const RankKey& key, const v1::Run& run) = 0;
  // To a process that is gone: nothing happens.
  virtual void Send(const RankKey& key, const v1::ToExecutor& message) = 0;
  virtual void Kill(const RankKey& key) = 0;  // SIGKILL
};

// The stream to the coordinator.
class FleetSender {
 public:
  virtual ~FleetSender() = default;
  // In order; lost if the stream breaks.
  virtual void Send(const v1::WorkerMessage& message) = 0;
  // Gives the stream up: a new one is dialled.
  virtual void Break(const absl::Status& why) = 0;
};

// What the node is. `hello` has everything but running, highest_term and draining.
struct NodeIdentity {
  v1::Hello hello;
  std::vector<std::pair<std::string, std::string>> data_roots;  // name, path
};

// One thread. Commands below the highest (term, attempt of their job) are refused. Events and blobs are sent
// again on a new stream until a heartbeat that was sent after them has been answered, so none is lost with a
// stream.
class NodeAgent {
 public:
  // All outlive the agent. `observer` may be null.
  NodeAgent(NodeIdentity identity, const Clock* clock, ExecutorHost* host, FleetSender* fleet,
            DeviceGate* gate, AgentObserver* observer = nullptr);

  // --- the stream ---
  void OnConnected();
  void OnDisconnected();
  void OnMessage(const v1::CoordinatorMessage& message);

  // --- executors ---
  void OnExecutorMessage(const RankKey& key, const v1::FromExecutor& message);
  void OnExecutorOutput(const RankKey& key, const char* data, size_t bytes) {
    logs_.Append(key, data, bytes);
  }
  // All of its messages have been given before.
  void OnExecutorExit(const RankKey& key, const ExecutorExit& exit);
  // The gate has opened or closed.
  void OnDevicesChanged();

  // Does what is due; when it is to be called again at the latest (Clock::BootMicros).
  int64_t Tick();

  // Takes no more ranks; those that run go on.
  void BeginDrain();
  // Also stops those that run.
  void BeginShutdown();
  // No executor runs.
  bool Idle() const;
  // And the coordinator is known to have heard everything about those that did.
  bool Settled() const { return Idle() && unconfirmed_.empty(); }

 private:
  static constexpr int64_t kStopGraceUs = 1'000'000;  // from Abort to SIGKILL
  static constexpr size_t kGangsKept = 32;            // of those that run nothing any more

  struct Rank {
    std::shared_ptr<const v1::StartRanks> start;
    int32_t device = 0;
    bool waiting = false;    // for its device to become free
    bool running = false;    // has a process
    bool reported = false;   // FINISHED or FAILED was sent
    bool killed = false;     // by us
    int64_t kill_at_us = 0;  // 0: not to be killed
    v1::RankProgress progress;
  };
  struct Gang {
    bool stop_asked = false;  // by the coordinator: STOPPED is due when a process is gone, and none starts
    std::map<int32_t, Rank> ranks;
  };
  using GangKey = std::pair<std::string, int32_t>;
  struct Unconfirmed {
    v1::WorkerMessage message;
    int64_t covered_by = 0;  // the heartbeat whose answer confirms it; 0: none was sent since
  };

  void SetWelcomed(bool welcomed);
  void OnWelcome(const v1::Welcome& welcome);
  bool Admit(const char* command, const v1::GangId& gang);
  void OnStart(const v1::StartRanks& start);
  void OnStop(const v1::StopGang& stop);
  void OnBlobs(const v1::BlobTable& blobs);
  void OnLogsQuery(const v1::LogsQuery& query);

  void StartRank(const GangKey& gang, int32_t rank);
  // The rank whose process holds `device`; null: it is free.
  const Rank* HolderOf(int32_t device, GangKey* gang) const;
  void StartWaiting();
  void AbortGang(const GangKey& key, Gang* gang, const absl::Status& reason, int64_t grace_us);
  absl::Status LeaseOver() const;
  // Stops a gang by this node's own decision: its ranks fail with `reason` as the cause.
  void StopByOwnDecision(const GangKey& key, Gang* gang, const absl::Status& reason);
  void Fail(const GangKey& key, int32_t rank, const absl::Status& error, bool root_cause);
  void SendEvent(const GangKey& key, int32_t rank, v1::RankEvent::Kind kind, v1::RankEvent event);
  void TellStopped(const GangKey& key, const Gang& gang, int32_t rank);
  void SendKept(v1::WorkerMessage message);
  void SendHeartbeat(int64_t now_us);
  // At once, and before any rank that fails for it: the coordinator takes nobody's word that it was for this.
  void SayDraining();
  void AddSetAside(google::protobuf::Map<int32_t, std::string>* to) const;
  // The gang, from now on among those that are remembered.
  Gang& Know(const GangKey& key);
  // The oldest past the limit, but none that runs something; last in a method: references to gangs end here.
  void ForgetOldGangs();
  v1::GangId IdOf(const GangKey& key) const;
  Rank* Find(const RankKey& key);

  const NodeIdentity identity_;
  const Clock* const clock_;
  ExecutorHost* const host_;
  FleetSender* const fleet_;
  DeviceGate* const gate_;
  AgentObserver nobody_;
  AgentObserver* const observer_;

  CommandFence fence_;
  WorkerLease lease_;
  ClockOffsetEstimator coordinator_clock_;
  LogStore logs_;
  std::map<GangKey, Gang> gangs_;
  std::deque<GangKey> gang_order_;  // oldest first
  std::deque<Unconfirmed> unconfirmed_;
  bool connected_ = false, welcomed_ = false, draining_ = false;
  int64_t hello_sent_us_ = 0, last_answer_us_ = 0, next_heartbeat_us_ = 0;
  int64_t heartbeat_us_ = 1'000'000, lease_us_ = 6'000'000, sequence_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_NODE_AGENT_H_
