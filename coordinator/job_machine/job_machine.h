// The life of one job as a pure function: record and event in, record and actions out. No clock, no lock, no
// I/O.
//
//            Placed           StagingReady         all finished     Merged            Committed Reported
//   kQueued --------> kPlacing -----------> kRunning --------> kMerging --> kCommitting --> kReporting -->
//   kEnded
//      ^                                       | a rank fails, is lost, stands still; cancel; deadline
//      |             may be tried again        v
//      +------------------------------------ kStopping --> kEnded        (once every rank is known to be
//      gone)
#ifndef SEQPAR_COORDINATOR_JOB_MACHINE_JOB_MACHINE_H_
#define SEQPAR_COORDINATOR_JOB_MACHINE_JOB_MACHINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/job_machine/events.h"
#include "coordinator/job_machine/job_record.h"
#include "coordinator/job_machine/slow_ranks.h"

namespace seqpar {

struct MachineConfig {
  int64_t bootstrap_timeout_us = 30'000'000;
  // A rank that stands still for so long ends its attempt: while it executes, or five times as long as a
  // layer is predicted to take, if that is longer; in other phases, where it may wait for a disk.
  int64_t step_timeout_us = 10'000'000;
  int64_t no_progress_timeout_us = 60'000'000;
  int64_t backoff_us = 500'000;  // before attempt 2; doubles with each failure, at most 64-fold
  int64_t checkpoint_interval_us = 60'000'000;  // of a forward job of many layers
  int max_attempts = 3;                         // of jobs that do not say
  SlowRankPolicy slow_ranks;
};

struct Now {
  int64_t boot_us = 0;  // what deadlines count by
  int64_t wall_us = 0;  // what is shown
};

// Applies `event`. Events that no longer concern the record (an attempt that is over, a job that has ended)
// change nothing, so repeating one is harmless. REQUIRES of Placed: stage kQueued.
std::vector<JobAction> Step(JobRecord* record, const JobEvent& event, const MachineConfig& config,
                            const Now& now);

// Whether an attempt that ended with this error may be followed by another. Errors of input, of prediction,
// of verification and of a full disk cannot pass.
bool MayPass(const absl::Status& error);

// The job's deadline by the wall clock; 0: none.
int64_t DeadlineUs(const JobRecord& record);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_JOB_MACHINE_JOB_MACHINE_H_
