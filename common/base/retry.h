// Errors that are nobody's fault and pass: a service that has too much to do, a node that was told to stop, a
// device that was slower than another.
#ifndef SEQPAR_COMMON_BASE_RETRY_H_
#define SEQPAR_COMMON_BASE_RETRY_H_

#include "absl/status/status.h"

namespace seqpar {

// Reasons, as those of status.h.
namespace reason {
inline constexpr char kNodeDrained[] = "NODE_DRAINED";
inline constexpr char kSlowRank[] = "SLOW_RANK";
inline constexpr char kTooManyJobs[] = "TOO_MANY_JOBS";
inline constexpr char kTenantLimit[] = "TENANT_LIMIT";
inline constexpr char kOverloaded[] = "OVERLOADED";
}  // namespace reason

// The same error, telling clients that it may be gone after `seconds`. On the wire: google.rpc.RetryInfo.
absl::Status WithRetry(const absl::Status& status, int seconds);
// What was told; 0: nothing.
int RetrySecondsOf(const absl::Status& status);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_RETRY_H_
