#include "worker/daemon/log_store.h"

#include <algorithm>

#include "common/base/utf8.h"

namespace seqpar {

void LogStore::Begin(const RankKey& key, const std::string& device) {
  const std::pair<std::string, int32_t> attempt(key.job, key.attempt);
  if (std::find(attempts_.begin(), attempts_.end(), attempt) == attempts_.end()) {
    attempts_.push_back(attempt);
  }
  Entry& entry = entries_[key];
  entry.device = device;
  entry.running = true;
  ForgetOld();
}

void LogStore::End(const RankKey& key) {
  const auto entry = entries_.find(key);
  if (entry != entries_.end()) entry->second.running = false;
}

void LogStore::ForgetOld() {
  for (size_t i = 0; attempts_.size() > attempts_kept_ && i < attempts_.size();) {
    const auto& [job, attempt] = attempts_[i];
    const auto begin = entries_.lower_bound({job, attempt, 0});
    const auto end = entries_.lower_bound({job, attempt + 1, 0});
    if (std::any_of(begin, end, [](const auto& entry) { return entry.second.running; })) {
      ++i;
      continue;
    }
    entries_.erase(begin, end);
    attempts_.erase(attempts_.begin() + static_cast<int64_t>(i));
  }
}

void LogStore::Append(const RankKey& key, const char* data, size_t bytes) {
  const auto entry = entries_.find(key);
  if (entry == entries_.end()) return;
  std::string& text = entry->second.text;
  text.append(data, bytes);
  // Cut in steps of a tail, so that each byte moves once on average.
  if (text.size() > 2 * kTailBytes) text.erase(0, text.size() - kTailBytes);
}

std::vector<LogStore::Tail> LogStore::Find(const std::string& job, std::optional<int32_t> attempt,
                                           std::optional<int32_t> rank) const {
  std::vector<Tail> found;
  for (auto entry = entries_.lower_bound({job, 0, 0}); entry != entries_.end() && entry->first.job == job;
       ++entry) {
    if (attempt.has_value() && *attempt != entry->first.attempt) continue;
    if (rank.has_value() && *rank != entry->first.rank) continue;
    const std::string& text = entry->second.text;
    const size_t begin = text.size() > kTailBytes ? text.size() - kTailBytes : 0;
    found.push_back({entry->first, entry->second.device, ToUtf8(text.substr(begin))});
  }
  return found;
}

}  // namespace seqpar
