// Errors of seqpar: absl::Status carrying a stable machine-readable reason and, for invalid input, every
// violation.
#ifndef SEQPAR_COMMON_BASE_STATUS_H_
#define SEQPAR_COMMON_BASE_STATUS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar {

// One thing that is wrong with an input: `field` is a path as in the job file ("config.head_dim"),
// `description` says what is wrong, `nearest` the nearest legal value ("" where none makes sense).
struct Violation {
  std::string field;
  std::string description;
  std::string nearest;
};

// Stable reasons: they travel as google.rpc.ErrorInfo.reason and never change once released.
namespace reason {
inline constexpr char kInvalidJob[] = "INVALID_JOB";
inline constexpr char kInvalidArgument[] = "INVALID_ARGUMENT";
inline constexpr char kInfeasible[] = "INFEASIBLE";
inline constexpr char kTooFewDevices[] = "TOO_FEW_DEVICES";
inline constexpr char kNotFound[] = "NOT_FOUND";
inline constexpr char kUnauthenticated[] = "UNAUTHENTICATED";
inline constexpr char kPermissionDenied[] = "PERMISSION_DENIED";
inline constexpr char kRequestIdReused[] = "REQUEST_ID_REUSED";
inline constexpr char kOutputInUse[] = "OUTPUT_IN_USE";
inline constexpr char kInputChanged[] = "INPUT_CHANGED";
inline constexpr char kVerificationFailed[] = "VERIFICATION_FAILED";
inline constexpr char kRankFailed[] = "RANK_FAILED";
inline constexpr char kRankLost[] = "RANK_LOST";
inline constexpr char kNoProgress[] = "NO_PROGRESS";
inline constexpr char kBootstrapTimeout[] = "BOOTSTRAP_TIMEOUT";
inline constexpr char kBootstrapMismatch[] = "BOOTSTRAP_MISMATCH";
inline constexpr char kPeerLost[] = "PEER_LOST";
inline constexpr char kOutOfMemory[] = "OUT_OF_MEMORY";
inline constexpr char kRateAbovePeak[] = "RATE_ABOVE_PEAK";
inline constexpr char kCancelled[] = "CANCELLED";
inline constexpr char kDeadlineExceeded[] = "DEADLINE_EXCEEDED";
inline constexpr char kStorage[] = "STORAGE";
inline constexpr char kInternal[] = "INTERNAL";
}  // namespace reason

// An error with a reason. `code` must not be kOk.
absl::Status MakeError(absl::StatusCode code, const char* reason, const std::string& message);

// INVALID_ARGUMENT with every violation; the message lists them, one a line. REQUIRES: !violations.empty().
absl::Status InvalidInput(const char* reason, const std::vector<Violation>& violations);

// The reason that MakeError or InvalidInput attached; "" where there is none.
std::string ReasonOf(const absl::Status& status);

// The violations that InvalidInput attached; empty where there are none.
std::vector<Violation> ViolationsOf(const absl::Status& status);

// The same error with "prefix: " before its message; payloads are kept. OK stays OK.
absl::Status Annotate(const absl::Status& status, const std::string& prefix);

// The name of `names` with the smallest edit distance to `wanted`; "" where names is empty.
std::string NearestName(const std::string& wanted, const std::vector<std::string>& names);

}  // namespace seqpar

// Returns from the enclosing function where the expression is not OK.
#define SEQPAR_RETURN_IF_ERROR(expr)                 \
  do {                                               \
    ::absl::Status seqpar_status_ = (expr);          \
    if (!seqpar_status_.ok()) return seqpar_status_; \
  } while (false)

#define SEQPAR_CONCAT_INNER_(a, b) a##b
#define SEQPAR_CONCAT_(a, b) SEQPAR_CONCAT_INNER_(a, b)
// SEQPAR_ASSIGN_OR_RETURN(auto x, Call()): declares or assigns x, or returns the error.
#define SEQPAR_ASSIGN_OR_RETURN(lhs, expr) \
  SEQPAR_ASSIGN_OR_RETURN_(SEQPAR_CONCAT_(seqpar_or_, __LINE__), lhs, expr)
// Names in declarations stand in no parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define SEQPAR_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return tmp.status();            \
  lhs = std::move(tmp).value()
// NOLINTEND(bugprone-macro-parentheses)

#endif  // SEQPAR_COMMON_BASE_STATUS_H_
