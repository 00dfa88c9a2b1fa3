// Where the bootstrap's table arrives.
#ifndef SEQPAR_WORKER_EXECUTOR_BLOB_INBOX_H_
#define SEQPAR_WORKER_EXECUTOR_BLOB_INBOX_H_

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"

namespace seqpar {

// Thread-safe.
class BlobInbox {
 public:
  void Put(const std::string& group, std::vector<std::string> blobs);
  // The table of `group`, by rank. DEADLINE_EXCEEDED (BOOTSTRAP_TIMEOUT) where it does not come in time.
  absl::StatusOr<std::vector<std::string>> Wait(const std::string& group, std::chrono::milliseconds timeout);

 private:
  Mutex mutex_;
  ConditionVariable arrived_;
  std::map<std::string, std::vector<std::string>> tables_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_BLOB_INBOX_H_
