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
  int rank = 0;                     // that is named first
  std::vector<std::string> others;  // "rank 1 on a/1 waits in ring #12 for rank 2"
};

// BOOTSTRAP_TIMEOUT, naming the ranks that did not arrive, where a rank's blob is missing `timeout_us` after
// the attempt began.
std::optional<Stuck> FindMissingAtBootstrap(const JobRecord& record, int64_t timeout_us, int64_t now_us);

// How long a rank may stand still.
struct Patience {
  int64_t step_us = 0;   // while it executes
  int64_t other_us = 0;  // before and after
};
// The larger of `step_timeout_us` and five predicted layers.
Patience PatienceFor(const JobRecord& record, int64_t step_timeout_us, int64_t other_us);

// NO_PROGRESS where a rank past its bootstrap that waits for nobody has not moved for so long, or where no
// rank has: a rank that waits in a collective while others move is not stuck. The one named is the one that
// others wait for, with its node, phase and step, and with the edge on which one of them waits:
//   missing enter  it has not come to the collective
//   missing exit   it has left the collective, and what it sent has not arrived
//   mismatch       it waits in another collective, for one that waits for it
std::optional<Stuck> FindStandstill(const JobRecord& record, const Patience& patience, int64_t now_us);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_JOB_MACHINE_STUCK_H_
