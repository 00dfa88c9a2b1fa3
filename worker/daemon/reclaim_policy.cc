#include "worker/daemon/reclaim_policy.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/units.h"

namespace seqpar {
namespace {

std::string Size(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }

}  // namespace

void ReclaimPolicy::Ended(int device, int64_t pid, int64_t now_us) {
  if (idle_bytes_.count(device) == 0) return;
  Watched& watched = watched_[device];
  watched.ended_us = watched.next_look_us = now_us;
  watched.why = "nothing was seen of its memory";
  if (pid != 0) watched.pids.insert(pid);
}

DeviceGate::State ReclaimPolicy::StateOf(int device) const {
  const auto found = watched_.find(device);
  if (found == watched_.end()) return State::kOpen;
  return found->second.set_aside ? State::kSetAside : State::kChecking;
}

std::string ReclaimPolicy::WhySetAside(int device) const {
  const auto found = watched_.find(device);
  return found == watched_.end() || !found->second.set_aside ? "" : found->second.why;
}

int64_t ReclaimPolicy::NextLookUs() const {
  int64_t next_us = std::numeric_limits<int64_t>::max();
  for (const auto& entry : watched_) next_us = std::min(next_us, entry.second.next_look_us);
  return next_us;
}

std::string ReclaimPolicy::WhyNotFree(int device, const Watched& watched, const HeldMemory& held) const {
  for (const int64_t pid : watched.pids) {
    const auto holder = held.processes.find(pid);
    if (holder == held.processes.end()) continue;
    return absl::StrCat("process ", pid, ", which has ended, still holds ", Size(holder->second), " of it");
  }
  if (shared_) return "";
  const int64_t more = held.used_bytes - idle_bytes_.at(device);
  return more <= kSlackBytes ? "" : absl::StrCat(Size(more), " more than when it was idle are in use");
}

void ReclaimPolicy::Looked(int64_t begin_us, const absl::StatusOr<HeldByDevice>& seen, int64_t now_us) {
  for (auto it = watched_.begin(); it != watched_.end();) {
    Watched& watched = it->second;
    const bool judged = watched.ended_us <= begin_us;
    if (!seen.ok()) {
      watched.why = absl::StrCat("its memory cannot be looked at: ", seen.status().message());
    } else if (judged) {
      const auto held = seen->find(it->first);
      watched.why =
          held == seen->end() ? "the driver does not show it" : WhyNotFree(it->first, watched, held->second);
    }
    if (judged) watched.next_look_us = now_us + (watched.set_aside ? retry_us_ : kAgainUs);
    it = watched.why.empty() ? watched_.erase(it) : std::next(it);
  }
  Tick(now_us);
}

int64_t ReclaimPolicy::Tick(int64_t now_us) {
  int64_t next_us = std::numeric_limits<int64_t>::max();
  for (auto& entry : watched_) {
    Watched& watched = entry.second;
    if (watched.set_aside) continue;
    if (now_us < watched.ended_us + kPatienceUs) {
      next_us = std::min(next_us, watched.ended_us + kPatienceUs);
      continue;
    }
    watched.set_aside = true;
    watched.next_look_us = now_us + retry_us_;
  }
  return next_us;
}

}  // namespace seqpar
