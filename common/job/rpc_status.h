// What an RPC ended with, as its caller has it.
#ifndef SEQPAR_COMMON_JOB_RPC_STATUS_H_
#define SEQPAR_COMMON_JOB_RPC_STATUS_H_

#include <string>

#include "absl/status/status.h"

namespace seqpar {

// From the three things that gRPC hands over: its code and message, and the details, a serialised
// google.rpc.Status that tells reason, violations and the time to wait. Without details, or with such as
// cannot be read, code and message are all.
absl::Status StatusFromRpc(int code, const std::string& message, const std::string& details);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_RPC_STATUS_H_
