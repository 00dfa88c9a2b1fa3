// What the exit code of seqpar means. Stable: scripts rely on it.
#ifndef SEQPAR_CLIENT_CLI_EXIT_CODES_H_
#define SEQPAR_CLIENT_CLI_EXIT_CODES_H_

#include "absl/status/status.h"
#include "seqpar/v1/job.pb.h"

namespace seqpar {

enum ExitCode {
  kExitOk = 0,
  kExitJobFailed = 1,  // also an error that has no code of its own
  kExitUsage = 2,
  kExitInvalid = 3,
  kExitNotFound = 4,
  // Nothing answers, or the service says that it may be otherwise later: it has too much to do, or there are
  // not the devices that a plan needs.
  kExitUnavailable = 5,
  kExitDeadline = 6,
  kExitCancelled = 7,
  kExitDenied = 8,  // the service does not know who asks, or they may not
  kExitInterrupted = 130,
};

// Of an error that the service or the client answered with.
ExitCode ExitCodeOf(const absl::Status& status);

// Of a job that was waited for. REQUIRES: it has ended.
ExitCode ExitCodeOf(const v1::Job& job);

}  // namespace seqpar

#endif  // SEQPAR_CLIENT_CLI_EXIT_CODES_H_
