// What the engine lets others see of its work. Nothing of it depends on what they do with it.
#ifndef SEQPAR_COORDINATOR_ENGINE_OBSERVER_H_
#define SEQPAR_COORDINATOR_ENGINE_OBSERVER_H_

#include <cstdint>
#include <map>
#include <string>

#include "coordinator/fleet/node_registry.h"
#include "coordinator/job_machine/events.h"
#include "coordinator/job_machine/job_record.h"
#include "coordinator/links/link_gang.h"

namespace seqpar {

// Calls must not wait for anything. This one sees nothing.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;

  // --- from the engine's thread ---
  // A new job, before it is durable.
  virtual void JobSubmitted(const JobRecord&) {}
  // `event` was applied; it may have changed nothing. A job that has ended is seen once as such, and no more.
  virtual void JobStepped(const JobRecord&, const JobEvent&) {}
  // Every node as it is now; a few times a second.
  virtual void NodesSeen(const std::map<std::string, NodeEntry>&) {}
  // A gang that was to measure a link is over.
  virtual void LinkEnded(const LinkEnds&, LinkOutcome) {}

  // --- from any thread ---
  // A request went through a phase that comes before there is a job: validate or submit.
  virtual void RequestPassed(JobPhase, double /*seconds*/) {}
  // A heartbeat came when `left_us` of the node's lease were left.
  virtual void LeaseExtended(const std::string& /*node*/, int64_t /*left_us*/) {}
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_OBSERVER_H_
