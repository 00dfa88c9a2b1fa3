// The environment that transports of this node's processes read.
#ifndef SEQPAR_WORKER_DAEMON_TRANSPORT_SETTINGS_H_
#define SEQPAR_WORKER_DAEMON_TRANSPORT_SETTINGS_H_

#include <string>
#include <vector>

#include "worker/config.h"

namespace seqpar {

// NAME=VALUE for UCX and NCCL of a process that drives one device. `process` names it among the processes
// that may meet: with several ranks on one GPU NCCL must take each for a host of its own.
std::vector<std::string> TransportSettings(const WorkerConfig& config, const std::string& process);

// What NCCL and UCX of such a process find in their environment, inherited or set, for logs: "NCCL_DEBUG=INFO
// UCX_TLS=tcp"; "" where they find nothing.
std::string DescribeTransport(const std::vector<std::string>& settings);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_TRANSPORT_SETTINGS_H_
