// Where the bootstrap's table arrives.
#ifndef SEQPAR_WORKER_EXECUTOR_BLOB_INBOX_H_
#define SEQPAR_WORKER_EXECUTOR_BLOB_INBOX_H_

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace seqpar {

// Thread-safe.
class BlobInbox {
 public:
  void Put(const std::string& group, std::vector<std::string> blobs);
  // The table of `group`, by rank. DEADLINE_EXCEEDED (BOOTSTRAP_TIMEOUT) where it does not come in time.
  absl::StatusOr<std::vector<std::string>> Wait(const std::string& group, std::chrono::milliseconds timeout);

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::string, std::vector<std::string>> tables_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_BLOB_INBOX_H_
