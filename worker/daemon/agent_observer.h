// What a node's agent lets others see of its work. Nothing of it depends on what they do with it.
#ifndef SEQPAR_WORKER_DAEMON_AGENT_OBSERVER_H_
#define SEQPAR_WORKER_DAEMON_AGENT_OBSERVER_H_

#include <cstdint>

#include "seqpar/v1/fleet.pb.h"
#include "worker/daemon/log_store.h"

namespace seqpar {

// Called from the agent's thread; calls must not wait for anything. This one sees nothing.
class AgentObserver {
 public:
  virtual ~AgentObserver() = default;

  // A coordinator has welcomed the node, or it has none any more.
  virtual void Attached(bool) {}
  // It was told to stop: no rank begins any more.
  virtual void Draining() {}
  // The node's own lease ends at `deadline_us` (CLOCK_BOOTTIME).
  virtual void LeaseExtended(int64_t /*deadline_us*/) {}
  // A heartbeat was answered this long after it was sent.
  virtual void HeartbeatAnswered(int64_t /*after_us*/) {}

  // Whether the device is given no ranks because it was not found well; told of every device when one
  // changes.
  virtual void DeviceSetAside(int /*device*/, bool /*aside*/) {}

  // An executor was started for the rank on `device`.
  virtual void RankStarted(const RankKey&, int /*device*/, const v1::StartRanks&) {}
  // Its totals only grow.
  virtual void RankProgressed(const RankKey&, const v1::RankProgress&) {}
  // FINISHED or FAILED, as the executor said itself.
  virtual void RankReported(const RankKey&, const v1::RankEvent&) {}
  // The executor's process is gone.
  virtual void RankEnded(const RankKey&) {}
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_AGENT_OBSERVER_H_
