// What a newer build of the other side may say that this one has no name for.
#ifndef SEQPAR_COMMON_JOB_KNOWN_VALUES_H_
#define SEQPAR_COMMON_JOB_KNOWN_VALUES_H_

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"

namespace seqpar {

// INVALID_ARGUMENT where an enum field of `message`, or of a message in it, has a number that this build has
// no name for; the error has the field's path, which begins with `name`: "plan.recompute is 9, ...". proto3
// hands such a number through, and code that asks for each value that it knows would do something else than
// was asked for. Maps are not looked into: no map of the contract has enums.
absl::Status CheckKnownValues(const std::string& name, const google::protobuf::Message& message);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_KNOWN_VALUES_H_
