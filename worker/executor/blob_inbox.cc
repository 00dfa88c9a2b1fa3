#include "worker/executor/blob_inbox.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {

void BlobInbox::Put(const std::string& group, std::vector<std::string> blobs) {
  MutexLock lock(mutex_);
  tables_[group] = std::move(blobs);
  arrived_.notify_all();
}

absl::StatusOr<std::vector<std::string>> BlobInbox::Wait(const std::string& group,
                                                         std::chrono::milliseconds timeout) {
  MutexLock lock(mutex_);
  const auto arrived = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return tables_.count(group) != 0; };
  if (arrived_.wait_for(mutex_, timeout, arrived)) return tables_[group];
  return MakeError(absl::StatusCode::kDeadlineExceeded, reason::kBootstrapTimeout,
                   absl::StrCat("the table of group ", group, " did not come in ", timeout.count(), " ms"));
}

}  // namespace seqpar
