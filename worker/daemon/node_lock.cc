#include "worker/daemon/node_lock.h"

#include <poll.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/lock_file.h"
#include "common/base/log.h"
#include "common/base/status.h"

namespace seqpar {

absl::StatusOr<UniqueFd> LockNode(const std::string& folder, const std::string& node,
                                  const std::string& coordinator, int wait_ms, int stop_fd) {
  constexpr int kLookMs = 100;
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);  // where it cannot be, the file cannot either
  const std::string path = absl::StrCat(folder, "/", node, "@", coordinator, ".lock");
  std::string holder;
  for (int left_ms = wait_ms;; left_ms -= kLookMs) {
    absl::StatusOr<UniqueFd> lock = TakeLockFile(path, &holder);
    if (!lock.ok()) {
      LogWarning("nothing keeps a second worker of this node away", {{"error", lock.status().message()}});
      return UniqueFd();
    }
    if (lock->valid()) return lock;
    if (left_ms <= 0) break;
    pollfd stop = {stop_fd, POLLIN, 0};
    if (poll(&stop, 1, std::min(left_ms, kLookMs)) > 0) return absl::CancelledError("told to stop");
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInvalidArgument,
                   absl::StrCat("another worker runs as ", node, " here: ", holder,
                                ". Stop it, or give this one another --node-name"));
}

}  // namespace seqpar
