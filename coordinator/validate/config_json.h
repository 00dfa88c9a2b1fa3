// A Hugging Face config.json against a job.
#ifndef SEQPAR_COORDINATOR_VALIDATE_CONFIG_JSON_H_
#define SEQPAR_COORDINATOR_VALIDATE_CONFIG_JSON_H_

#include <string>

#include "common/job/job.h"
#include "coordinator/validate/violations.h"

namespace seqpar {

// `text` must say what the job says, and nothing that would change the result of a layer and is not
// supported.
void CheckConfigJson(const JobSpec& job, const std::string& text, Violations* violations);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_VALIDATE_CONFIG_JSON_H_
