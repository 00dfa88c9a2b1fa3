#include "coordinator/planner/placement.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/planner/network.h"

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
    std::map<std::string, std::vector<int>> mine;
    for (size_t d = 0; d < node.devices.size(); ++d) {
      const int device = static_cast<int>(d);
      if (filter.Admits(node, device)) mine[node.devices[d].kind].push_back(device);
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

int Threads(const NodeSnapshot& node) {
  int threads = 0;
  for (const DeviceSpec& device : node.devices) threads += device.threads;
  return threads;
}

// Rates are of a node whose devices are all busy: a device by itself has its cores' whole rate.
double AloneFactor(const NodeSnapshot& node) {
  return node.cores > 0 ? std::max(1.0, static_cast<double>(Threads(node)) / node.cores) : 1;
}

void AddDevice(const DeviceSpec& spec, double alone_factor, Gang* gang) {
  const DeviceRates alone = alone_factor > 1 ? Scaled(spec.rates, alone_factor) : spec.rates;
  gang->rates = gang->devices.size() == 1 ? alone : SlowerOf(gang->rates, alone);
  gang->device_kind = spec.kind;
  Least(&gang->memory_bytes, spec.memory_bytes);
}

// `taken`: devices of the node that the gang gets.
void AddNode(const NodeSnapshot& node, const std::vector<int>& devices, int taken, Gang* gang) {
  gang->local.latency = std::max(gang->local.latency, node.local.latency);
  Least(&gang->local.bandwidth, node.local.bandwidth);
  gang->start_seconds = std::max(gang->start_seconds, node.start_seconds);
  if (node.cores <= 0) return;
  std::vector<bool> runs(node.devices.size(), false);
  for (size_t d = 0; d < node.devices.size(); ++d) runs[d] = d < node.free.size() && !node.free[d];
  for (int i = 0; i < taken; ++i) runs[devices[i]] = true;
  int threads = 0;
  for (size_t d = 0; d < node.devices.size(); ++d) threads += runs[d] ? node.devices[d].threads : 0;
  gang->contention = std::max(gang->contention, static_cast<double>(threads) / node.cores);
  gang->copies_compete = gang->copies_compete || threads >= node.cores;
}

std::string KindOf(const NodeSnapshot& node, const DeviceSpec& device) {
  std::string kind = absl::StrCat(device.kind, " ", device.name);
  if (node.cores > 0) {
    absl::StrAppend(&kind, ", ", node.devices.size(), node.devices.size() == 1 ? " slot of " : " slots of ",
                    device.threads, device.threads == 1 ? " thread on " : " threads on ", node.cores,
                    node.cores == 1 ? " core" : " cores");
  }
  return kind;
}

Gang MakeGang(const ClusterSnapshot& cluster, std::vector<NodeDevices> nodes, int ranks) {
  std::stable_sort(nodes.begin(), nodes.end(), [&](const NodeDevices& a, const NodeDevices& b) {
    const bool a_fits = a.size() >= ranks, b_fits = b.size() >= ranks;
    if (a_fits != b_fits) return a_fits;
    return a_fits ? a.size() < b.size() : a.size() > b.size();
  });
  Gang gang;
  std::vector<int> used;  // nodes
  int before_last = 0;    // ranks of the node before the last one
  bool even = true;
  for (const NodeDevices& node : nodes) {
    const int taken = std::min(node.size(), ranks - static_cast<int>(gang.devices.size()));
    if (taken == 0) break;
    if (gang.per_node == 0) gang.per_node = taken;
    used.push_back(node.node);
    even = even && (before_last == 0 || before_last == gang.per_node) && taken <= gang.per_node;
    before_last = taken;
    const NodeSnapshot& snapshot = cluster.nodes[node.node];
    AddNode(snapshot, node.devices, taken, &gang);
    const double alone_factor = AloneFactor(snapshot);
    if (gang.node_kind.empty()) gang.node_kind = KindOf(snapshot, snapshot.devices[node.devices[0]]);
    for (int i = 0; i < taken; ++i) {
      gang.devices.push_back({node.node, node.devices[i]});
      AddDevice(snapshot.devices[node.devices[i]], alone_factor, &gang);
    }
  }
  if (!even) gang.per_node = 0;
  gang.network = cluster.network;
  if (used.size() > 1) {
    GangNetwork network = NetworkBetween(cluster, gang.device_kind, used);
    gang.network = network.rates;
    gang.network_from = std::move(network.from);
  }
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

std::vector<std::string> KindsOf(const ClusterSnapshot& cluster, const DeviceFilter& filter) {
  std::vector<std::string> kinds;
  for (const auto& entry : UsableByKind(cluster, filter)) kinds.push_back(entry.first);
  return kinds;
}

std::vector<int64_t> MemorySizes(const ClusterSnapshot& cluster, const DeviceFilter& filter) {
  std::set<int64_t> sizes;
  for (const auto& entry : UsableByKind(cluster, filter)) {
    for (const NodeDevices& node : entry.second) {
      for (int device : node.devices) sizes.insert(cluster.nodes[node.node].devices[device].memory_bytes);
    }
  }
  return {sizes.begin(), sizes.end()};
}

int LargestGang(const ClusterSnapshot& cluster, const DeviceFilter& filter) {
  int largest = 0;
  for (const auto& entry : UsableByKind(cluster, filter)) {
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
