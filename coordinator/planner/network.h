// What the links between the nodes of a gang do, from those that were measured.
#ifndef SEQPAR_COORDINATOR_PLANNER_NETWORK_H_
#define SEQPAR_COORDINATOR_PLANNER_NETWORK_H_

#include <string>
#include <vector>

#include "common/job/cluster.h"

namespace seqpar {

struct GangNetwork {
  LinkRates rates;
  std::string from;  // "measured between a and b"; empty: as the cluster says, nothing was measured
};

// The worst that two of `nodes` (indices, each once) have between them, with devices of `kind`. Of two that
// were not measured with each other: no better than the best link of either, nor than the median of those
// between their zones; where there is none of those, what the cluster says of its network.
GangNetwork NetworkBetween(const ClusterSnapshot& cluster, const std::string& kind,
                           const std::vector<int>& nodes);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_NETWORK_H_
