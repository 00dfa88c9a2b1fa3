// Which rank of a gang is slow, and whether the job is done sooner without its device. Pure.
#ifndef SEQPAR_COORDINATOR_JOB_MACHINE_SLOW_RANKS_H_
#define SEQPAR_COORDINATOR_JOB_MACHINE_SLOW_RANKS_H_

#include <optional>
#include <string>
#include <vector>

#include "coordinator/job_machine/job_record.h"

namespace seqpar {

struct SlowRankPolicy {
  double factor = 0;  // a rank is slow that takes more than so many times as long as its gang; 0: none ever
  int reports = 3;    // so often in a row
  int replacements = 2;  // of a job, at most: what slows every device is not mended by another
};

// What the planner says of the job on the devices that it holds and on those that are free, without some.
struct OtherPlan {
  double step_seconds = 0;   // of all layers
  double start_seconds = 0;  // until they begin
};

// Notes what a rank has done in all: model flops of the layers that it finished, and its kernels' seconds up
// to then. True where these are more layers than before, by which its pace is known anew.
bool NoteWork(double flops, double flops_seconds, RankRecord* rank);

// For each rank its pace (seconds of kernels for each flop of the layers that its latest report added)
// divided by the median of its gang's; of an even number of ranks the faster of the two in the middle, so
// that of two ranks one can stand out. 1: as fast as the others, 2: half as fast; 0: it does not execute, or
// has finished no layer yet.
std::vector<double> SlownessOf(const JobRecord& record);

// To be asked once for each report of `rank` by which its pace is known anew: counts those by which it is
// slow. True where it is to be seen whether the job had better go on without its device: it has been slow so
// often in a row, none is slower, and the job has had fewer replacements than it may. Counting then begins
// anew.
bool IsToReplace(const SlowRankPolicy& policy, int rank, JobRecord* record);

// Why the attempt had better end for another on `other`, in words: "rank 2 on b/1 took 4.1 times ...".
// Nothing where it had not: what is left of it at the slow rank's pace takes no longer than to start again
// and do all behind the last checkpoint once more. Where the gang's median is slower than was predicted, so
// is `other`.
std::optional<std::string> WhyReplace(const JobRecord& record, const SlowRankPolicy& policy, int rank,
                                      const OtherPlan& other);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_JOB_MACHINE_SLOW_RANKS_H_
