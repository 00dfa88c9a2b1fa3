#include "worker/daemon/transport_settings.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/daemon/executor_processes.h"

namespace seqpar {

std::vector<std::string> TransportSettings(const WorkerConfig& config, const std::string& process) {
  std::vector<std::string> settings;
  if (!config.data_interface.empty()) {
    settings.push_back(absl::StrCat("UCX_NET_DEVICES=", config.data_interface));
    settings.push_back(absl::StrCat("NCCL_SOCKET_IFNAME=", config.data_interface));
  }
  if (config.ranks_per_gpu > 1) {
    settings.push_back(absl::StrCat("NCCL_HOSTID=", config.node_name, "-", process));
  }
  return settings;
}

std::string DescribeTransport(const std::vector<std::string>& settings) {
  std::vector<std::string> found;
  for (const std::string& variable : EnvironmentWith(settings)) {
    if (variable.rfind("NCCL_", 0) == 0 || variable.rfind("UCX_", 0) == 0) found.push_back(variable);
  }
  std::sort(found.begin(), found.end());
  return absl::StrJoin(found, " ");
}

}  // namespace seqpar
