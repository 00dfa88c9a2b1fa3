// Who changed what, when and from where; and who was turned away.
#ifndef SEQPAR_COORDINATOR_AUTH_AUDIT_LOG_H_
#define SEQPAR_COORDINATOR_AUTH_AUDIT_LOG_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/fd.h"
#include "common/base/mutex.h"
#include "coordinator/auth/caller.h"

namespace seqpar {

// Thread-safe. A record is one write(2), in the file as one JSON object a line; without a file it is a line
// of the log. The file is opened once, for appending: rotate it by copying and truncating.
class AuditLog {
 public:
  // `path` empty: the log. INVALID_ARGUMENT where the file cannot be opened. `clock` outlives it.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(const std::string& path, const Clock* clock);

  // `method`: "/seqpar.v1.JobService/CancelJob". `object`: the job or node. `request`: what else was asked,
  // in words. `outcome`: OK, or the error that was answered.
  void Changed(const Caller& caller, const std::string& method, const std::string& object,
               const std::string& request, const absl::Status& outcome);

  // A call that was refused before it was looked at. At most ten a second are written, with how many were
  // not.
  void Refused(const std::string& method, const absl::Status& why);

 private:
  AuditLog(UniqueFd file, const Clock* clock) : clock_(clock), file_(std::move(file)) {}
  template <typename... Fields>
  void Write(const std::string& message, const Fields&... fields);

  const Clock* const clock_;
  const UniqueFd file_;
  Mutex mutex_;
  int64_t second_ ABSL_GUARDED_BY(mutex_) = 0;
  int written_ ABSL_GUARDED_BY(mutex_) = 0;  // refusals of that second
  int64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_AUTH_AUDIT_LOG_H_
