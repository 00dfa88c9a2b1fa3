#include "coordinator/engine/test_hold.h"

#include <unistd.h>

#include <chrono>
#include <thread>

#include "common/base/log.h"

namespace seqpar {

absl::Status TestHold::Wait(JobPhase phase, const std::string& job) {
  const auto found = files_.find(phase);
  if (found == files_.end()) return absl::OkStatus();
  bool logged = false;
  while (access(found->second.c_str(), F_OK) == 0) {
    if (released_) return absl::UnavailableError("the coordinator is shutting down");
    if (!logged) LogInfo("test-hold", {{"phase", PhaseName(phase)}, {"job", job}, {"file", found->second}});
    logged = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return absl::OkStatus();
}

}  // namespace seqpar
