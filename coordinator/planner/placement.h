// Placement: which devices a gang of so many ranks gets, and over which links its groups then run.
#ifndef SEQPAR_COORDINATOR_PLANNER_PLACEMENT_H_
#define SEQPAR_COORDINATOR_PLANNER_PLACEMENT_H_

#include <optional>
#include <string>
#include <vector>

#include "common/job/cluster.h"
#include "common/parallel/mesh.h"

namespace seqpar {

struct PlacedDevice {
  int node = 0;    // index into ClusterSnapshot::nodes
  int device = 0;  // index within the node
};

// What a gang runs on: devices by rank, all of one kind, and the slowest and smallest of them.
struct Gang {
  std::vector<PlacedDevice> devices;
  DeviceRates rates;        // the least of each rate
  int64_t memory_bytes = 0;  // the least
  LinkRates local;           // the worst of the nodes used
  LinkRates network;
};

// The devices of ready nodes (only the free ones if asked), grouped by kind, best first: fewest nodes, then the node that
// fits most tightly. Ranks fill a node before the next, so that tensor neighbours are closest. None where fewer than
// `ranks` of one kind are there.
std::optional<Gang> PlaceGang(const ClusterSnapshot& cluster, int ranks, bool only_free);

// The largest gang that could be placed.
int LargestGang(const ClusterSnapshot& cluster, bool only_free);

// The number of usable devices of each node where all nodes have as many, else 0.
int DevicesPerNode(const ClusterSnapshot& cluster);

// The link that a group really crosses: local where all of its ranks are on one node.
LinkRates LinkOf(const Gang& gang, const std::vector<int>& group);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_PLACEMENT_H_
