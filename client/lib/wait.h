// Waiting for a job through restarts of the coordinator.
#ifndef SEQPAR_CLIENT_LIB_WAIT_H_
#define SEQPAR_CLIENT_LIB_WAIT_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "client/lib/client.h"
#include "common/base/clock.h"

namespace seqpar {

// True for SUCCEEDED, FAILED and CANCELLED.
bool HasEnded(const v1::Job& job);

struct WaitOptions {
  // How long the service may be unreachable or overloaded in one go before the wait gives up with its last
  // error.
  double reconnect_seconds = 60;
  // How long the wait may take; DEADLINE_EXCEEDED after that (the job goes on). 0: no bound.
  double wait_seconds = 0;
};

struct WaitHooks {
  // Each change of the job, and the job as it is first; never twice the same revision.
  std::function<void(const v1::Job&)> on_change;
  // Once when the service becomes unreachable, or has too much to do, and once when that is over.
  std::function<void(const std::string&)> on_message;
  // Waits for this long; tests advance a fake clock instead.
  std::function<void(double seconds)> sleep;
};

// Watches until the job has ended and returns it, with its report. A service that asks for some time is given
// it, up to `reconnect_seconds`. Errors: NOT_FOUND, UNAVAILABLE, RESOURCE_EXHAUSTED (OVERLOADED) and
// DEADLINE_EXCEEDED as above, and whatever else the service refuses with.
absl::StatusOr<v1::Job> WaitForJob(SeqparService& service, const std::string& id, const WaitOptions& options,
                                   const Clock& clock, const WaitHooks& hooks);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_LIB_WAIT_H_
