// Which layers of a job have their output kept, so that another attempt can go on from it. Pure.
#ifndef SEQPAR_COORDINATOR_JOB_MACHINE_CHECKPOINTS_H_
#define SEQPAR_COORDINATOR_JOB_MACHINE_CHECKPOINTS_H_

#include <cstdint>
#include <vector>

#include "common/job/job.h"
#include "common/job/plan.h"

namespace seqpar {

// After how many layers (counted from the job's first) an attempt that begins with layer `first_layer` writes
// a checkpoint: about every `interval_us` of the predicted time, and not after the last layer. None where the
// job has a backward pass, which needs more than a layer's output, where it is verified, since its report
// speaks of every layer, or where it has no output file beside which they could lie.
std::vector<int> CheckpointLayers(const JobSpec& spec, const Plan& plan, int first_layer,
                                  int64_t interval_us);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_JOB_MACHINE_CHECKPOINTS_H_
