// The GPUs of this node, by way of a process that looks at them (worker/executor/probe_gpus.h).
#ifndef SEQPAR_WORKER_DAEMON_GPUS_H_
#define SEQPAR_WORKER_DAEMON_GPUS_H_

#include "absl/status/statusor.h"
#include "seqpar/v1/plan.pb.h"

namespace seqpar {

// Every GPU that the driver shows, in its order, and the link between them. UNAVAILABLE says what is missing:
// plug-in, driver, library, version, architecture. CANCELLED as soon as `stop_fd` becomes readable;
// DEADLINE_EXCEEDED where the process hangs, as one that asks a sick card may.
absl::StatusOr<v1::NodeSpec> FindGpus(int stop_fd);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_GPUS_H_
