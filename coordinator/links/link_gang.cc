#include "coordinator/links/link_gang.h"

#include <algorithm>
#include <utility>

namespace seqpar {

const char* LinkOutcomeName(LinkOutcome outcome) {
  switch (outcome) {
    case LinkOutcome::kMeasured:
      return "measured";
    case LinkOutcome::kFailed:
      return "failed";
    case LinkOutcome::kInterrupted:
      break;
  }
  return "interrupted";
}

LinkGang::LinkGang(std::string id, LinkWish wish, int64_t deadline_us)
    : id_(std::move(id)), wish_(std::move(wish)), deadline_us_(deadline_us) {
  for (size_t i = 0; i < std::min(wish_.a_devices.size(), wish_.b_devices.size()); ++i) {
    ranks_.push_back({wish_.ends.a, wish_.a_devices[i]});
    ranks_.push_back({wish_.ends.b, wish_.b_devices[i]});
  }
}

std::optional<std::vector<std::string>> LinkGang::AddBlob(int rank, const std::string& blob) {
  if (!blobs_.emplace(rank, blob).second || blobs_.size() < ranks_.size()) return std::nullopt;
  std::vector<std::string> all;
  for (const auto& entry : blobs_) all.push_back(entry.second);
  return all;
}

std::optional<LinkRates> LinkGang::AddResult(int rank, const LinkRates& rates) {
  results_[rank] = rates;
  if (results_.size() < ranks_.size()) return std::nullopt;
  LinkRates worst = results_.begin()->second;  // all say the same
  for (const auto& entry : results_) {
    worst.latency = std::max(worst.latency, entry.second.latency);
    worst.bandwidth = std::min(worst.bandwidth, entry.second.bandwidth);
  }
  return worst;
}

}  // namespace seqpar
