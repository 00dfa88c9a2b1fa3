#include "client/cli/exit_codes.h"

#include "common/base/retry.h"
#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {

ExitCode ExitCodeOf(const absl::Status& status) {
  if (RetrySecondsOf(status) > 0) return kExitUnavailable;  // for now, as the service says
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:  // INFEASIBLE, OUTPUT_IN_USE
    case absl::StatusCode::kAlreadyExists:       // REQUEST_ID_REUSED
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kResourceExhausted:  // without a time: the job is larger than may be
      return kExitInvalid;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnavailable:
      return kExitUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitDeadline;
    case absl::StatusCode::kCancelled:
      return kExitCancelled;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kExitDenied;
    default:
      return kExitJobFailed;
  }
}

ExitCode ExitCodeOf(const v1::Job& job) {
  if (job.state() == v1::JOB_STATE_SUCCEEDED) return kExitOk;
  if (job.state() == v1::JOB_STATE_CANCELLED) return kExitCancelled;
  const bool late = ReasonOf(StatusFromProto(job.error())) == reason::kDeadlineExceeded;
  return late ? kExitDeadline : kExitJobFailed;
}

}  // namespace seqpar
