// The GPUs of this node, by way of processes that look at them (worker/executor/probe_gpus.h) and measure
// them (worker/executor/calibrate.h).
#ifndef SEQPAR_WORKER_DAEMON_GPUS_H_
#define SEQPAR_WORKER_DAEMON_GPUS_H_

#include "absl/status/statusor.h"
#include "seqpar/v1/plan.pb.h"
#include "worker/config.h"

namespace seqpar {

// Every GPU that the driver shows, in its order, with its rates, and the links between them, all GPUs
// measured at once. UNAVAILABLE says what is missing: plug-in, driver, library, version, architecture.
// CANCELLED as soon as `stop_fd` becomes readable; DEADLINE_EXCEEDED where a process hangs, as one that asks
// a sick card may.
absl::StatusOr<v1::NodeSpec> FindGpus(const WorkerConfig& config, int stop_fd);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_GPUS_H_
