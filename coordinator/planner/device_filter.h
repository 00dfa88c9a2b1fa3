// Which devices of a cluster a job may have, and how to say so.
#ifndef SEQPAR_COORDINATOR_PLANNER_DEVICE_FILTER_H_
#define SEQPAR_COORDINATOR_PLANNER_DEVICE_FILTER_H_

#include <cstdint>
#include <map>
#include <string>

#include "common/job/cluster.h"
#include "common/job/job.h"

namespace seqpar {

struct DeviceFilter {
  bool only_free = false;
  int64_t least_memory = 0;                          // bytes
  std::string kind = "";                             // "": any
  std::map<std::string, std::string> selector = {};  // labels that the node must have

  // Whether a gang may have this device. Those that take no ranks now are never admitted.
  bool Admits(const NodeSnapshot& node, int device) const;
  // Whether it is of the kind, memory and labels; it may be busy, and its node away.
  bool Suits(const NodeSnapshot& node, int device) const;
};

// What the job asks for.
DeviceFilter FilterOf(const JobSpec& job, bool only_free);

// "4 devices", "1 cuda device", "2 devices on nodes with pool=a".
std::string DevicesOf(int count, const DeviceFilter& filter);

// What to add where there are too few. "; w2 takes no ranks now": nodes that are draining or lost, and
// devices that are set aside, which would be admitted otherwise. Where there are none, and none is admitted,
// busy ones counted: "; attached nodes have pool b, c", "; no attached node has a label pol, nearest: pool".
// Else "".
std::string WhyTooFew(const ClusterSnapshot& cluster, const DeviceFilter& filter);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_DEVICE_FILTER_H_
