#include "coordinator/scheduler/job_queue.h"

#include <utility>

namespace seqpar {

void JobQueue::Add(const Turn& turn) {
  if (set_aside_.count(turn) != 0) return;
  const auto held = held_.find(turn.tenant);
  const bool behind = held != held_.end() && !(turn < *held->second.begin());
  if (behind && turns_.count(turn) == 0) {
    held->second.insert(turn);
  } else if (!behind) {
    turns_.insert(turn);
  }
}

void JobQueue::Remove(const Turn& turn) {
  turns_.erase(turn);
  set_aside_.erase(turn);
  const auto held = held_.find(turn.tenant);
  if (held == held_.end()) return;
  held->second.erase(turn);
  if (held->second.empty()) held_.erase(held);
}

bool JobQueue::IsAmongFirst(const Turn& turn, size_t n) const {
  size_t before = 0;
  for (auto it = turns_.begin(); it != turns_.end() && *it < turn && before < n; ++it) ++before;
  return before < n;
}

void JobQueue::SetNodes(const std::string& nodes) {
  if (nodes == nodes_) return;
  turns_.merge(set_aside_);
  nodes_ = nodes;
}

void JobQueue::SetAside(const Turn& turn) {
  if (turns_.erase(turn) != 0) set_aside_.insert(turn);
}

void JobQueue::Hold(const Turn& turn) {
  if (turns_.erase(turn) != 0) held_[turn.tenant].insert(turn);
}

bool JobQueue::Release(const std::string& tenant) {
  const auto held = held_.find(tenant);
  if (held == held_.end()) return false;
  for (size_t i = 0; i < kReleased && !held->second.empty(); ++i) {
    turns_.insert(held->second.extract(held->second.begin()));
  }
  if (held->second.empty()) held_.erase(held);
  return true;
}

const Turn* JobQueue::FirstHeld(const std::string& tenant) const {
  const auto held = held_.find(tenant);
  return held == held_.end() ? nullptr : &*held->second.begin();
}

}  // namespace seqpar
