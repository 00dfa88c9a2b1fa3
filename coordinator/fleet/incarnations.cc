#include "coordinator/fleet/incarnations.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr int kRetrySeconds = 5;

}  // namespace

absl::Status Incarnations::Admit(const std::string& node, int64_t incarnation,
                                 const std::function<bool(const std::string&)>& holds_lease) {
  MutexLock lock(mutex_);
  const auto found = nodes_.find(node);
  if (found == nodes_.end()) {
    if (nodes_.size() >= kNodesMax) nodes_.clear();
    nodes_[node].latest = incarnation;
    return absl::OkStatus();
  }
  Node& known = found->second;
  if (known.latest == incarnation) return absl::OkStatus();
  const auto replaced = std::find(known.replaced.begin(), known.replaced.end(), incarnation);
  if (replaced != known.replaced.end()) {
    if (holds_lease(node)) {
      return WithRetry(
          MakeError(absl::StatusCode::kFailedPrecondition, reason::kNodeReplaced,
                    absl::StrCat("another worker has attached as ", node,
                                 " since this one did, and is there: stop one of the two, or give it "
                                 "another --node-name")),
          kRetrySeconds);
    }
    known.replaced.erase(replaced);
  }
  known.replaced.push_back(known.latest);
  if (known.replaced.size() > kReplacedMax) known.replaced.pop_front();
  known.latest = incarnation;
  return absl::OkStatus();
}

}  // namespace seqpar
