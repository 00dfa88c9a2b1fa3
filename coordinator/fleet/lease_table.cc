
#include "coordinator/fleet/lease_table.h"

#include <algorithm>
#include <limits>

namespace seqpar {

void LeaseTable::Grant(const std::string& node, int64_t stream, int64_t now_us) {
  MutexLock lock(mutex_);
  leases_[node] = {stream, now_us + lease_us_};
}

std::optional<int64_t> LeaseTable::Extend(const std::string& node, int64_t stream, int64_t now_us) {
  MutexLock lock(mutex_);
  const auto found = leases_.find(node);
  if (found == leases_.end() || found->second.stream != stream || now_us >= found->second.end_us)
    return std::nullopt;
  const int64_t left_us = found->second.end_us - now_us;
  found->second.end_us = now_us + lease_us_;
  return left_us;
}

std::vector<std::string> LeaseTable::TakeExpired(int64_t now_us) {
  MutexLock lock(mutex_);
  std::vector<std::string> expired;
  for (auto it = leases_.begin(); it != leases_.end();) {
    if (now_us < it->second.end_us) {
      ++it;
      continue;
    }
    expired.push_back(it->first);
    it = leases_.erase(it);
  }
  return expired;
}

int64_t LeaseTable::NextEndUs() const {
  MutexLock lock(mutex_);
  int64_t next_us = std::numeric_limits<int64_t>::max();
  for (const auto& [node, lease] : leases_) next_us = std::min(next_us, lease.end_us);
  return next_us;
}

std::optional<int64_t> LeaseTable::Left(const std::string& node, int64_t now_us) const {
  MutexLock lock(mutex_);
  const auto found = leases_.find(node);
  if (found == leases_.end()) return std::nullopt;
  return found->second.end_us - now_us;
}

std::map<std::string, int64_t> LeaseTable::AllLeft(int64_t now_us) const {
  MutexLock lock(mutex_);
  std::map<std::string, int64_t> left;
  for (const auto& [node, lease] : leases_) left[node] = lease.end_us - now_us;
  return left;
}

}  // namespace seqpar
