// What can be wrong with a message before anything is known about jobs.
#ifndef SEQPAR_COORDINATOR_VALIDATE_WIRE_H_
#define SEQPAR_COORDINATOR_VALIDATE_WIRE_H_

#include "coordinator/validate/violations.h"
#include "seqpar/v1/job.pb.h"

namespace seqpar {

// Refuses what would otherwise be dropped in silence: fields that are output only, enum values and fields
// that this version does not know.
void CheckWire(const v1::Job& job, Violations* violations);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_VALIDATE_WIRE_H_
