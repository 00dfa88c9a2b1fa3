// What validation learns from the files that a job names: headers only.
#ifndef SEQPAR_COORDINATOR_VALIDATE_FILES_H_
#define SEQPAR_COORDINATOR_VALIDATE_FILES_H_

#include "common/base/data_roots.h"
#include "coordinator/validate/validate.h"
#include "coordinator/validate/violations.h"

namespace seqpar {

// Resolves the paths of `job->spec`, checks the files behind them and takes their fingerprints. Fills in
// batch and tokens from an input file. `given_tokens` and `given_batch`: what the job said, 0 where nothing.
void ValidateInputs(const DataRoots& roots, int64_t given_tokens, int64_t given_batch, ValidatedJob* job,
                    Violations* violations);
void ValidateWeights(const DataRoots& roots, ValidatedJob* job, Violations* violations);
void ValidateOutput(const DataRoots& roots, ValidatedJob* job, Violations* violations);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_VALIDATE_FILES_H_
