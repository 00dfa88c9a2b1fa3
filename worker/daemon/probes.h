// The processes that measure a node's slots, one a slot, and the talk with them
// (worker/executor/calibrate.h).
#ifndef SEQPAR_WORKER_DAEMON_PROBES_H_
#define SEQPAR_WORKER_DAEMON_PROBES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "seqpar/v1/plan.pb.h"
#include "worker/config.h"

namespace seqpar {

struct ProbeResults {
  std::vector<v1::NodeSpec> slots;  // each with one device; `local` where the slots were connected
  double start_seconds = 0;         // until the last had said that all are connected; 0: they were not
};

// Measures all slots at once. CANCELLED as soon as `stop_fd` becomes readable; INTERNAL where a process fails
// or says something else than a result; DEADLINE_EXCEEDED after 30 s.
absl::StatusOr<ProbeResults> RunProbes(const WorkerConfig& config, bool by_cpu_time, int stop_fd);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_PROBES_H_
