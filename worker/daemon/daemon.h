// The worker daemon: one a node. Never touches a device: executors do.
#ifndef SEQPAR_WORKER_DAEMON_DAEMON_H_
#define SEQPAR_WORKER_DAEMON_DAEMON_H_

#include "worker/config.h"

namespace seqpar {

// Runs until SIGTERM or SIGINT, then stops its executors and the stream, and returns 0 within 3 s. 1, with
// the error logged, where it cannot start. Call from the main thread, before others exist: it blocks those
// signals.
int RunDaemon(const WorkerConfig& config);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_DAEMON_H_
