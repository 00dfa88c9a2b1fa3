// What keeps a worker from obeying the past (docs/reliability.md). Pure.
#ifndef SEQPAR_WORKER_DAEMON_FENCE_H_
#define SEQPAR_WORKER_DAEMON_FENCE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "absl/status/status.h"

namespace seqpar {

// Remembers the highest term seen, and for each job the highest attempt. A job is forgotten only after
// kJobsMax newer ones.
class CommandFence {
 public:
  // OK, and remembers both, where neither is below the highest seen; else FAILED_PRECONDITION with both
  // figures.
  absl::Status Admit(int64_t term, const std::string& job, int32_t attempt);
  absl::Status AdmitTerm(int64_t term);
  // The highest attempt of each of the `count` jobs that were heard of last.
  std::map<std::string, int32_t> LatestAttempts(size_t count) const;
  int64_t highest_term() const { return highest_term_; }

 private:
  static constexpr size_t kJobsMax = 100'000;

  int64_t highest_term_ = 0;
  std::map<std::string, int32_t> highest_attempt_;
  std::deque<std::string> jobs_;  // oldest first
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_FENCE_H_
