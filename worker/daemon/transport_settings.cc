#include "worker/daemon/transport_settings.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "worker/daemon/executor_processes.h"

namespace seqpar {
namespace {

// Of this process's network namespace, and RDMA devices.
std::vector<std::string> NetworkDevices() {
  std::vector<std::string> devices;
  if (struct if_nameindex* const all = if_nameindex(); all != nullptr) {
    for (const struct if_nameindex* at = all; at->if_index != 0; ++at) devices.push_back(at->if_name);
    if_freenameindex(all);
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/infiniband", error)) {
    devices.push_back(entry.path().filename().string());
  }
  return devices;
}

// "eth0 10.0.0.1", of those that are up and lead elsewhere. Only IPv4, which stays: addresses of IPv6 may be
// new ones each day.
std::set<std::string> Addresses() {
  std::set<std::string> found;
  struct ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return found;
  for (const struct ifaddrs* at = all; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET) continue;
    if ((at->ifa_flags & IFF_UP) == 0 || (at->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN] = "";
    const auto* address = reinterpret_cast<const struct sockaddr_in*>(at->ifa_addr);
    inet_ntop(AF_INET, &address->sin_addr, text, sizeof(text));
    found.insert(absl::StrCat(at->ifa_name, " ", text));
  }
  freeifaddrs(all);
  return found;
}

}  // namespace

std::string LinkKey(const WorkerConfig& config) {
  return absl::StrCat(DescribeTransport(TransportSettings(config, "rank-N")), " | ",
                      absl::StrJoin(Addresses(), ", "));
}

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

std::vector<std::string> UnknownInterfaces(const std::string& asked,
                                           const std::vector<std::string>& devices) {
  std::vector<std::string> unknown;
  const std::string list = asked.substr(asked.rfind('^', 0) == 0 ? 1 : 0);
  const std::vector<std::string> words = absl::StrSplit(list, ',', absl::SkipEmpty());
  for (const std::string& word : words) {
    const std::string name = word.substr(0, word.find(':'));  // "mlx5_0:1" is a port of mlx5_0
    if (name == "all" || std::find(devices.begin(), devices.end(), name) != devices.end()) continue;
    unknown.push_back(word);
  }
  return unknown;
}

void WarnOfUnknownInterfaces(const WorkerConfig& config) {
  const std::vector<std::string> devices = NetworkDevices();
  const std::vector<std::string> unknown = UnknownInterfaces(config.data_interface, devices);
  if (unknown.empty()) return;
  LogWarning("--data-interface: this machine has no such device",
             {{"asked", absl::StrJoin(unknown, ",")},
              {"nearest", NearestName(unknown.front(), devices)},
              {"there_are", absl::StrJoin(devices, ",")}});
}

}  // namespace seqpar
