// Placement: which devices a gang of so many ranks gets, and over which links its groups then run.
#ifndef SEQPAR_COORDINATOR_PLANNER_PLACEMENT_H_
#define SEQPAR_COORDINATOR_PLANNER_PLACEMENT_H_

#include <optional>
#include <string>
#include <vector>

#include "common/job/cluster.h"
#include "common/parallel/mesh.h"
#include "coordinator/planner/device_filter.h"

namespace seqpar {

struct PlacedDevice {
  int node = 0;    // index into ClusterSnapshot::nodes
  int device = 0;  // index within the node
};

// What a gang runs on: devices by rank, all of one kind, and the slowest and smallest of them.
struct Gang {
  std::vector<PlacedDevice> devices;
  DeviceRates rates;  // the least of each rate, of a device that has its cores to itself
  // Threads that run on a node over its cores, at least 1: of the gang, and of jobs that hold other devices
  // there. Work that all ranks have as much of takes so many times longer than on a device by itself.
  double contention = 1;
  // No core is left over: what a transfer copies, compute waits for.
  bool copies_compete = false;
  double start_seconds = 0;  // until executors are connected, of the slowest node; 0: not known
  std::string device_kind;   // of common/device/device_models.h
  std::string node_kind;     // of the first node: "cpu NAME, 4 slots of 1 thread on 2 cores"
  int64_t memory_bytes = 0;  // the least
  // Of it, what a plan may count on: predictions err by a few percent.
  int64_t usable_bytes() const { return memory_bytes / 20 * 19; }
  LinkRates local;  // the worst of the nodes used
  LinkRates network;
  std::string network_from;  // where that figure comes from, where there is a word to say; of several nodes
  // Ranks of a node where every node of the gang holds as many (the last may hold fewer), else 0.
  int per_node = 0;
};

// The devices that `filter` admits, of the kind whose slowest member is fastest: on one node if one has
// room, the tightest such; else the fullest nodes first, so that fewest are used. Ranks fill a node before
// the next: tensor neighbours are closest. None where fewer than `ranks` of one kind are there.
std::optional<Gang> PlaceGang(const ClusterSnapshot& cluster, int ranks, const DeviceFilter& filter);

// The kinds of the devices that `filter` admits.
std::vector<std::string> KindsOf(const ClusterSnapshot& cluster, const DeviceFilter& filter);

// The memory sizes of the devices that `filter` admits, ascending, each once.
std::vector<int64_t> MemorySizes(const ClusterSnapshot& cluster, const DeviceFilter& filter);

// The largest gang that could be placed.
int LargestGang(const ClusterSnapshot& cluster, const DeviceFilter& filter);

// What one rank sends: to ranks of its own node, and to others.
struct Flow {
  double near_bytes = 0, far_bytes = 0;
  double near_messages = 0, far_messages = 0;
};
double SecondsOf(const Flow& flow, const Gang& gang);

// Groups of a mesh: the axes, the ranks that hold the same tensor shard of the weights with other tokens (U x
// R), and all.
enum class GroupKind { kTensor, kUlysses, kRing, kTensorShard, kWorld };
int GroupSize(const Mesh& mesh, GroupKind kind);

// The flow of a rank that sends `bytes` in `messages`, evenly to every other member of its group; of the rank
// that has most peers on other nodes.
Flow SpreadOver(const Gang& gang, const Mesh& mesh, GroupKind kind, double bytes, double messages);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_PLACEMENT_H_
