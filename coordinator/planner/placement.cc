#include "coordinator/planner/placement.h"

#include <algorithm>
#include <map>

namespace seqpar {
namespace {

struct Candidate {
  int node;
  std::vector<int> devices;
};

std::map<std::string, std::vector<Candidate>> UsableByKind(const ClusterSnapshot& cluster, bool only_free) {
  std::map<std::string, std::vector<Candidate>> kinds;
  for (size_t n = 0; n < cluster.nodes.size(); ++n) {
    const NodeSnapshot& node = cluster.nodes[n];
    if (!node.ready) continue;
    std::map<std::string, std::vector<int>> mine;
    for (size_t d = 0; d < node.devices.size(); ++d) {
      if (!only_free || node.free[d]) mine[node.devices[d].kind].push_back(static_cast<int>(d));
    }
    for (auto& [kind, devices] : mine) kinds[kind].push_back({static_cast<int>(n), std::move(devices)});
  }
  return kinds;
}

template <typename T>
void Least(T* least, T value) {
  if (*least == 0 || value < *least) *least = value;
}

void Worst(LinkRates* worst, const LinkRates& link) {
  worst->latency = std::max(worst->latency, link.latency);
  Least(&worst->bandwidth, link.bandwidth);
}

Gang MakeGang(const ClusterSnapshot& cluster, std::vector<Candidate> nodes, int ranks) {
  // The tightest single node that holds them all; else the fullest nodes first, which uses fewest.
  std::stable_sort(nodes.begin(), nodes.end(), [&](const Candidate& a, const Candidate& b) {
    const bool a_fits = static_cast<int>(a.devices.size()) >= ranks, b_fits = static_cast<int>(b.devices.size()) >= ranks;
    if (a_fits != b_fits) return a_fits;
    return a_fits ? a.devices.size() < b.devices.size() : a.devices.size() > b.devices.size();
  });
  Gang gang;
  for (const Candidate& node : nodes) {
    if (static_cast<int>(gang.devices.size()) == ranks) break;
    Worst(&gang.local, cluster.nodes[node.node].local);
    for (int device : node.devices) {
      if (static_cast<int>(gang.devices.size()) == ranks) break;
      gang.devices.push_back({node.node, device});
      const DeviceSpec& spec = cluster.nodes[node.node].devices[device];
      Least(&gang.rates.gemm_flops, spec.rates.gemm_flops);
      Least(&gang.rates.attention_forward_flops, spec.rates.attention_forward_flops);
      Least(&gang.rates.attention_backward_flops, spec.rates.attention_backward_flops);
      Least(&gang.rates.copy_bytes, spec.rates.copy_bytes);
      Least(&gang.rates.peak_flops, spec.rates.peak_flops);
      Least(&gang.memory_bytes, spec.memory_bytes);
    }
  }
  gang.network = cluster.network;
  return gang;
}

int Count(const std::vector<Candidate>& nodes) {
  size_t count = 0;
  for (const Candidate& node : nodes) count += node.devices.size();
  return static_cast<int>(count);
}

}  // namespace

std::optional<Gang> PlaceGang(const ClusterSnapshot& cluster, int ranks, bool only_free) {
  std::optional<Gang> best;
  for (auto& [kind, nodes] : UsableByKind(cluster, only_free)) {
    if (Count(nodes) < ranks) continue;
    Gang gang = MakeGang(cluster, nodes, ranks);
    if (!best || gang.rates.gemm_flops > best->rates.gemm_flops) best = std::move(gang);
  }
  return best;
}

int LargestGang(const ClusterSnapshot& cluster, bool only_free) {
  int largest = 0;
  for (const auto& [kind, nodes] : UsableByKind(cluster, only_free)) largest = std::max(largest, Count(nodes));
  return largest;
}

int DevicesPerNode(const ClusterSnapshot& cluster) {
  int each = 0;
  for (const NodeSnapshot& node : cluster.nodes) {
    if (!node.ready) continue;
    const int mine = static_cast<int>(node.devices.size());
    if (each != 0 && mine != each) return 0;
    each = mine;
  }
  return each;
}

LinkRates LinkOf(const Gang& gang, const std::vector<int>& group) {
  for (int rank : group) {
    if (gang.devices[rank].node != gang.devices[group[0]].node) return gang.network;
  }
  return gang.local;
}

}  // namespace seqpar
