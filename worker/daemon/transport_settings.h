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

// What the links of this node to others depend on, in text: such a process's environment, and the addresses
// of this machine. Other than before: the links are not what they were.
std::string LinkKey(const WorkerConfig& config);

// What of --data-interface, in UCX_NET_DEVICES' words ("eth0", "mlx5_0:1", "eth0,eth1", "all", "^lo"), none
// of `devices` is called by.
std::vector<std::string> UnknownInterfaces(const std::string& asked, const std::vector<std::string>& devices);

// Warns where --data-interface names what this machine has not: ranks of other nodes would not be reached.
void WarnOfUnknownInterfaces(const WorkerConfig& config);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_TRANSPORT_SETTINGS_H_
