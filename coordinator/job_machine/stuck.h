// Which rank keeps a gang from going on, in words. Pure.
#ifndef SEQPAR_COORDINATOR_JOB_MACHINE_STUCK_H_
#define SEQPAR_COORDINATOR_JOB_MACHINE_STUCK_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/job_machine/job_record.h"

namespace seqpar {

struct Stuck {
  absl::Status cause;
  std::vector<std::string> others;  // "rank 1 on a/1 waits in ring #12 for rank 2"
};

// BOOTSTRAP_TIMEOUT, naming the ranks that did not arrive, where a rank's blob is missing `timeout_us` after
// the attempt began.
std::optional<Stuck> FindMissingAtBootstrap(const JobRecord& record, int64_t timeout_us, int64_t now_us);

// NO_PROGRESS where a rank past its bootstrap that waits for nobody has not moved for `timeout_us`, or where
// no rank has: a rank that waits in a collective while others move is not stuck. The one named is the one
// that others wait for.
std::optional<Stuck> FindStandstill(const JobRecord& record, int64_t timeout_us, int64_t now_us);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_JOB_MACHINE_STUCK_H_
