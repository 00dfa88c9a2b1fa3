// The processes that measure a node's devices, one a device, and the talk with them
// (worker/executor/calibrate.h).
#ifndef SEQPAR_WORKER_DAEMON_PROBES_H_
#define SEQPAR_WORKER_DAEMON_PROBES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "seqpar/v1/plan.pb.h"

namespace seqpar {

// One process: what `seqpar-worker calibrate` is told, and NAME=VALUE that it gets above what it inherits.
struct ProbeCommand {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;
};

struct ProbeResults {
  // Each with one device; `local` where they were connected. INTERNAL where its process fails, with what it
  // said, or says something else than a result; DEADLINE_EXCEEDED where it did not end in time.
  std::vector<absl::StatusOr<v1::NodeSpec>> devices;
  double start_seconds = 0;  // until the last had said that all are connected; 0: they were not
};

// Measures all devices at once, for `timeout_us` at most; where one has no transport or does not come, the
// others are not connected. CANCELLED as soon as `stop_fd` becomes readable; INTERNAL where no process can be
// started.
absl::StatusOr<ProbeResults> RunProbes(const std::vector<ProbeCommand>& commands, int64_t timeout_us,
                                       int stop_fd);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_PROBES_H_
