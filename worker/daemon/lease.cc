#include "worker/daemon/lease.h"

#include <algorithm>

namespace seqpar {

void WorkerLease::Grant(int64_t lease_ms, int64_t hello_sent_us) {
  lease_us_ = lease_ms * 1000;
  sent_us_.clear();  // they went to a stream that is gone: nobody answers them
  ExtendFrom(hello_sent_us);
}

void WorkerLease::HeartbeatSent(int64_t sequence, int64_t now_us) { sent_us_[sequence] = now_us; }

bool WorkerLease::HeartbeatAnswered(int64_t sequence) {
  const auto sent = sent_us_.find(sequence);
  if (sent == sent_us_.end()) return false;
  ExtendFrom(sent->second);
  sent_us_.erase(sent_us_.begin(), std::next(sent));
  return true;
}

int64_t WorkerLease::length_us() const {
  constexpr int64_t kMarginUs = 1'000'000;
  return lease_us_ - std::min(kMarginUs, lease_us_ / 2);
}

void WorkerLease::ExtendFrom(int64_t sent_us) {
  deadline_us_ = std::max(deadline_us_, sent_us + length_us());
}

}  // namespace seqpar
