// The failpoints around what a node's agent sends, receives and starts.
#ifndef SEQPAR_WORKER_DAEMON_FAULTY_PORTS_H_
#define SEQPAR_WORKER_DAEMON_FAULTY_PORTS_H_

#include "common/base/failpoints.h"
#include "worker/daemon/node_agent.h"

namespace seqpar {

// Sends what `fleet`, which outlives it, sends. With a message that is dropped goes all that follows on the
// same stream, which is broken.
class FaultySender : public FleetSender {
 public:
  explicit FaultySender(FleetSender* fleet) : fleet_(fleet) {}
  void Send(const v1::WorkerMessage& message) override;
  void Break(const absl::Status& why) override { fleet_->Break(why); }

 private:
  FleetSender* const fleet_;
  bool lost_ = false;  // a message of this stream was
};

// Does to executors what `host`, which outlives it, does.
class FaultyExecutorHost : public ExecutorHost {
 public:
  explicit FaultyExecutorHost(ExecutorHost* host) : host_(host) {}
  absl::Status Start(const RankKey& key, const v1::Run& run) override;
  void Send(const RankKey& key, const v1::ToExecutor& message) override;
  void Kill(const RankKey& key) override;

 private:
  ExecutorHost* const host_;
};

// Both, for a daemon's agent, and what comes from the coordinator.
class FaultyPorts {
 public:
  FaultyPorts(ExecutorHost* host, FleetSender* fleet)
      : host_(host), fleet_(fleet), faulty_host_(host), faulty_fleet_(fleet) {}
  // What the agent is to use: where failpoints are off, those that were given.
  ExecutorHost* host() { return FailpointsOn() ? &faulty_host_ : host_; }
  FleetSender* fleet() { return FailpointsOn() ? &faulty_fleet_ : fleet_; }
  // Passes the failpoint of a message that came on `stream`. True where it is lost, and with it all that
  // follows on the stream, which is broken.
  bool Loses(int64_t stream, const v1::CoordinatorMessage& message);

 private:
  ExecutorHost* const host_;
  FleetSender* const fleet_;
  FaultyExecutorHost faulty_host_;
  FaultySender faulty_fleet_;
  int64_t lost_stream_ = 0;  // of which a message was lost
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_FAULTY_PORTS_H_
