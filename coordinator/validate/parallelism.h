// Whether what a job asks of the mesh can mean anything.
#ifndef SEQPAR_COORDINATOR_VALIDATE_PARALLELISM_H_
#define SEQPAR_COORDINATOR_VALIDATE_PARALLELISM_H_

#include "common/job/job.h"
#include "coordinator/validate/violations.h"
#include "seqpar/v1/job.pb.h"

namespace seqpar {

// `spec` is `job` as a value. Judges strategy, degrees, core, inner ring and workers; whether it fits is the
// planner's question.
void CheckParallelism(const v1::Job& job, const JobSpec& spec, Violations* violations);

// The divisor of `of` that is nearest to `wanted`.
int64_t NearestDivisor(int64_t of, int64_t wanted);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_VALIDATE_PARALLELISM_H_
