#include "coordinator/planner/placement.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace seqpar {
namespace {

struct NodeDevices {
  int node;
  std::vector<int> devices;
  int size() const { return static_cast<int>(devices.size()); }
};

std::map<std::string, std::vector<NodeDevices>> UsableByKind(const ClusterSnapshot& cluster,
                                                             const DeviceFilter& filter) {
  std::map<std::string, std::vector<NodeDevices>> kinds;
  for (size_t n = 0; n < cluster.nodes.size(); ++n) {
    const NodeSnapshot& node = cluster.nodes[n];
    if (!node.ready) continue;
    std::map<std::string, std::vector<int>> mine;
    for (size_t d = 0; d < node.devices.size(); ++d) {
      const DeviceSpec& device = node.devices[d];
      if (device.memory_bytes < filter.least_memory || (filter.only_free && !node.free[d])) continue;
      mine[device.kind].push_back(static_cast<int>(d));
    }
    for (auto& entry : mine) kinds[entry.first].push_back({static_cast<int>(n), std::move(entry.second)});
  }
  return kinds;
}

int Count(const std::vector<NodeDevices>& nodes) {
  int count = 0;
  for (const NodeDevices& node : nodes) count += node.size();
  return count;
}

template <typename T>
void Least(T* least, T value) {
  if (*least == 0 || value < *least) *least = value;
}

void AddDevice(const DeviceSpec& spec, Gang* gang) {
  Least(&gang->rates.gemm_flops, spec.rates.gemm_flops);
  Least(&gang->rates.attention_forward_flops, spec.rates.attention_forward_flops);
  Least(&gang->rates.attention_backward_flops, spec.rates.attention_backward_flops);
  Least(&gang->rates.copy_bytes, spec.rates.copy_bytes);
  Least(&gang->rates.peak_flops, spec.rates.peak_flops);
  Least(&gang->memory_bytes, spec.memory_bytes);
}

Gang MakeGang(const ClusterSnapshot& cluster, std::vector<NodeDevices> nodes, int ranks) {
  std::stable_sort(nodes.begin(), nodes.end(), [&](const NodeDevices& a, const NodeDevices& b) {
    const bool a_fits = a.size() >= ranks, b_fits = b.size() >= ranks;
    if (a_fits != b_fits) return a_fits;
    return a_fits ? a.size() < b.size() : a.size() > b.size();
  });
  Gang gang;
  int before_last = 0;  // ranks of the node before the last one
  bool even = true;
  for (const NodeDevices& node : nodes) {
    const int taken = std::min(node.size(), ranks - static_cast<int>(gang.devices.size()));
    if (taken == 0) break;
    if (gang.per_node == 0) gang.per_node = taken;
    even = even && (before_last == 0 || before_last == gang.per_node) && taken <= gang.per_node;
    before_last = taken;
    const LinkRates& local = cluster.nodes[node.node].local;
    gang.local.latency = std::max(gang.local.latency, local.latency);
    Least(&gang.local.bandwidth, local.bandwidth);
    for (int i = 0; i < taken; ++i) {
      gang.devices.push_back({node.node, node.devices[i]});
      AddDevice(cluster.nodes[node.node].devices[node.devices[i]], &gang);
    }
  }
  if (!even) gang.per_node = 0;
  gang.network = cluster.network;
  return gang;
}

double SecondsOver(const LinkRates& link, double bytes, double messages) {
  return bytes / std::max(1.0, link.bandwidth) + messages * link.latency;
}

int GroupOf(const Mesh& mesh, GroupKind kind, int rank) {
  const MeshCoord at = mesh.CoordOf(rank);
  switch (kind) {
    case GroupKind::kTensor:
      return rank / mesh.tensor;
    case GroupKind::kUlysses:
      return at.ring * mesh.tensor + at.tensor;
    case GroupKind::kRing:
      return at.ulysses * mesh.tensor + at.tensor;
    case GroupKind::kTensorShard:
      return at.tensor;
    case GroupKind::kWorld:
      break;
  }
  return 0;
}

// The fewest members that a group has on a node where it has any: those have most peers elsewhere. Ranks fill
// a node before the next, so a node's ranks are one run.
int FewestTogether(const Gang& gang, const Mesh& mesh, GroupKind kind, int size) {
  if (gang.devices.front().node == gang.devices.back().node) return size;
  std::vector<int> members(mesh.size(), 0), seen;
  int fewest = size;
  const auto finish_node = [&] {
    for (int group : seen) {
      fewest = std::min(fewest, members[group]);
      members[group] = 0;
    }
    seen.clear();
  };
  for (int rank = 0; rank < mesh.size(); ++rank) {
    if (rank > 0 && gang.devices[rank].node != gang.devices[rank - 1].node) finish_node();
    const int group = GroupOf(mesh, kind, rank);
    if (members[group]++ == 0) seen.push_back(group);
  }
  finish_node();
  return fewest;
}

}  // namespace

std::optional<Gang> PlaceGang(const ClusterSnapshot& cluster, int ranks, const DeviceFilter& filter) {
  std::optional<Gang> best;
  for (auto& entry : UsableByKind(cluster, filter)) {
    if (Count(entry.second) < ranks) continue;
    Gang gang = MakeGang(cluster, std::move(entry.second), ranks);
    if (!best || gang.rates.gemm_flops > best->rates.gemm_flops) best = std::move(gang);
  }
  return best;
}

std::vector<int64_t> MemorySizes(const ClusterSnapshot& cluster, bool only_free) {
  std::set<int64_t> sizes;
  for (const auto& entry : UsableByKind(cluster, {only_free, 0})) {
    for (const NodeDevices& node : entry.second) {
      for (int device : node.devices) sizes.insert(cluster.nodes[node.node].devices[device].memory_bytes);
    }
  }
  return {sizes.begin(), sizes.end()};
}

int LargestGang(const ClusterSnapshot& cluster, bool only_free) {
  int largest = 0;
  for (const auto& entry : UsableByKind(cluster, {only_free, 0})) {
    largest = std::max(largest, Count(entry.second));
  }
  return largest;
}

double SecondsOf(const Flow& flow, const Gang& gang) {
  return SecondsOver(gang.local, flow.near_bytes, flow.near_messages) +
         SecondsOver(gang.network, flow.far_bytes, flow.far_messages);
}

int GroupSize(const Mesh& mesh, GroupKind kind) {
  switch (kind) {
    case GroupKind::kTensor:
      return mesh.tensor;
    case GroupKind::kUlysses:
      return mesh.ulysses;
    case GroupKind::kRing:
      return mesh.ring;
    case GroupKind::kTensorShard:
      return mesh.ulysses * mesh.ring;
    case GroupKind::kWorld:
      break;
  }
  return mesh.size();
}

Flow SpreadOver(const Gang& gang, const Mesh& mesh, GroupKind kind, double bytes, double messages) {
  const int size = GroupSize(mesh, kind);
  Flow flow;
  if (size <= 1) return flow;
  const int together = FewestTogether(gang, mesh, kind, size);
  const double far = static_cast<double>(size - together) / (size - 1);
  flow.far_bytes = bytes * far;
  flow.near_bytes = bytes - flow.far_bytes;
  flow.far_messages = messages * far;
  flow.near_messages = messages - flow.far_messages;
  return flow;
}

}  // namespace seqpar
