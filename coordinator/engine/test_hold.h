// Holds the coordinator at a phase of a job's life while a file exists, so that a test can break it just
// there.
#ifndef SEQPAR_COORDINATOR_ENGINE_TEST_HOLD_H_
#define SEQPAR_COORDINATOR_ENGINE_TEST_HOLD_H_

#include <atomic>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "common/job/job.h"

namespace seqpar {

class TestHold {
 public:
  // File by phase; empty: nothing is ever held.
  explicit TestHold(std::map<JobPhase, std::string> files) : files_(std::move(files)) {}

  // Waits while the phase's file exists. UNAVAILABLE once released by Release.
  absl::Status Wait(JobPhase phase, const std::string& job);
  // Ends every wait, now and later: the process is shutting down.
  void Release() { released_ = true; }

 private:
  const std::map<JobPhase, std::string> files_;
  std::atomic<bool> released_{false};
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_TEST_HOLD_H_
