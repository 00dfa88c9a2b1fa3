// The metrics of jobs, attempts, nodes and leases: what the engine lets be seen, counted.
#ifndef SEQPAR_COORDINATOR_METRICS_JOB_METRICS_H_
#define SEQPAR_COORDINATOR_METRICS_JOB_METRICS_H_

#include <cstdint>
#include <map>
#include <string>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/metrics/registry.h"
#include "coordinator/engine/observer.h"

namespace seqpar {

class JobMetrics : public EngineObserver {
 public:
  // Both outlive it, and it outlives the scrapes of `registry`.
  JobMetrics(MetricRegistry* registry, const Clock* clock);

  void JobSubmitted(const JobRecord& record) override;
  void JobStepped(const JobRecord& record, const JobEvent& event) override;
  void NodesSeen(const std::map<std::string, NodeEntry>& nodes) override;
  void LinkEnded(const LinkEnds& ends, LinkOutcome outcome) override;
  void RequestPassed(JobPhase phase, double seconds) override;
  void LeaseExtended(const std::string& node, int64_t left_us) override;

 private:
  // A job as it was when it was seen last.
  struct Seen {
    JobState state = JobState::kPending;
    JobPhase phase = JobPhase::kPlan;
    Stage stage = Stage::kQueued;
    int attempt = 0;
    size_t ended_attempts = 0;
    int64_t phase_since_us = 0, queued_since_us = 0;
  };

  // The job as it was, which is taken up as it is where it was not known.
  Seen& Find(const JobRecord& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountPhases(const JobRecord& record, Seen* seen);
  void CountAttempts(const JobRecord& record, Seen* seen);
  void CountResult(const JobRecord& record);
  // Of each rank that executes, or none.
  void SetSlowness(const JobRecord& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Leave(const std::string& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  prometheus::Gauge& JobsIn(JobState state, JobPhase phase);

  MetricRegistry* const registry_;
  const Clock* const clock_;
  prometheus::Histogram& lease_margin_;

  mutable Mutex mutex_;
  std::map<std::string, Seen> jobs_ ABSL_GUARDED_BY(mutex_);
  // By job: the devices whose slowness is shown.
  std::map<std::string, std::map<MetricRegistry::Values, double>> slowness_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_METRICS_JOB_METRICS_H_
