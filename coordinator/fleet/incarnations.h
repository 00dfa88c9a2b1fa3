// Which daemon of each node is its latest one.
#ifndef SEQPAR_COORDINATOR_FLEET_INCARNATIONS_H_
#define SEQPAR_COORDINATOR_FLEET_INCARNATIONS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "common/base/mutex.h"

namespace seqpar {
namespace reason {
inline constexpr char kNodeReplaced[] = "NODE_REPLACED";
}

// Of two daemons that go by one name the one that came later stays: that which it took the place of may not
// come back while it is there, or they would end each other's ranks in turns. Thread-safe.
class Incarnations {
 public:
  // Whether the daemon of this incarnation may attach: it is the node's latest from then on.
  // FAILED_PRECONDITION (NODE_REPLACED), with a time after which to ask again, where another has attached as
  // `node` since this one did, and is there: `holds_lease` says so.
  absl::Status Admit(const std::string& node, int64_t incarnation,
                     const std::function<bool(const std::string&)>& holds_lease);

 private:
  // Past so many nodes all are forgotten, and of a node so many are known: at worst one comes back once that
  // should not.
  static constexpr size_t kNodesMax = 10'000, kReplacedMax = 16;
  struct Node {
    int64_t latest = 0;
    std::deque<int64_t> replaced;  // oldest first
  };

  Mutex mutex_;
  std::map<std::string, Node> nodes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_FLEET_INCARNATIONS_H_
