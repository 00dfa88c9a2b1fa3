// The search: every shape that the devices allow, judged and put in order.
#ifndef SEQPAR_COORDINATOR_PLANNER_SEARCH_H_
#define SEQPAR_COORDINATOR_PLANNER_SEARCH_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/job/cluster.h"
#include "common/job/job.h"
#include "common/job/plan.h"
#include "coordinator/planner/cost.h"
#include "coordinator/planner/planner.h"
#include "coordinator/planner/shapes.h"

namespace seqpar {

// Two predictions nearer than this are a tie: fewer devices win, then the simpler mesh.
inline constexpr double kTie = 0.02;
inline constexpr size_t kAllShown = 5000;

inline constexpr char kExceedsMemory[] = "exceeds the memory of a device";
inline constexpr char kTooFewHeads[] = "tensor x ulysses exceeds the heads";

struct Scored {
  Shape shape;
  Candidate candidate;
  int64_t usable_bytes = 0;  // Gang::usable_bytes
  int64_t least_memory = 0;  // the gang is of devices that have as much
  std::string kind;          // and are of this kind
  LinkRates network;         // Gang::network
  std::string network_from;  // Gang::network_from
};

struct SearchResult {
  // The chosen one first, the rest by predicted time.
  std::vector<Scored> feasible;
  std::vector<Scored> rejected;  // in the order of the search; reasons are set
  int64_t considered = 0;
  // By reason, with counts and the nearest miss of each.
  std::vector<Rejection> rejections;
  std::vector<std::string> kinds;  // of the devices that the job may have
};

// `sizes`: the world sizes to try, each at most LargestGang.
SearchResult SearchShapes(const JobSpec& job, const ClusterSnapshot& cluster, const PlanOptions& options,
                          const std::vector<int>& sizes, CostModel* model);

// Of many sizes the ones worth a look: all up to 16, powers of two, whole numbers of nodes up to 16, and both
// ends.
std::vector<int> SizesWorthTrying(std::vector<int> sizes, int per_node);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_SEARCH_H_
