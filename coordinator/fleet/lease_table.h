// The leases of nodes, apart from everything else, so that a heartbeat counts from the moment it arrives,
// whatever the rest of the coordinator is busy with.
#ifndef SEQPAR_COORDINATOR_FLEET_LEASE_TABLE_H_
#define SEQPAR_COORDINATOR_FLEET_LEASE_TABLE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/mutex.h"

namespace seqpar {

// Thread-safe. Times are Clock::BootMicros.
class LeaseTable {
 public:
  explicit LeaseTable(int64_t lease_us) : lease_us_(lease_us) {}

  // Grants a full lease. `stream`: who may extend it from now on (0: nobody yet).
  void Grant(const std::string& node, int64_t stream, int64_t now_us);
  // Microseconds that were left. Nothing where the lease is over or belongs to another stream: the worker
  // must attach anew.
  std::optional<int64_t> Extend(const std::string& node, int64_t stream, int64_t now_us);
  // Removes the leases that are over and names their nodes.
  std::vector<std::string> TakeExpired(int64_t now_us);
  // When the first of the leases ends, INT64_MAX where there is none.
  int64_t NextEndUs() const;
  // Microseconds left; nothing where the node has no lease.
  std::optional<int64_t> Left(const std::string& node, int64_t now_us) const;
  std::map<std::string, int64_t> AllLeft(int64_t now_us) const;

 private:
  struct Lease {
    int64_t stream = 0;
    int64_t end_us = 0;
  };

  const int64_t lease_us_;
  mutable Mutex mutex_;
  std::map<std::string, Lease> leases_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_FLEET_LEASE_TABLE_H_
