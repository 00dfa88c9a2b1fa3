// What gRPC says of itself, such as why a handshake failed, as records of our log.
#ifndef SEQPAR_COMMON_RPC_GRPC_LOG_H_
#define SEQPAR_COMMON_RPC_GRPC_LOG_H_

#include "common/base/log.h"

namespace seqpar {

// Call in main before the first channel or server. gRPC's errors become records of level `errors`; what it
// says beside them (with GRPC_VERBOSITY) is of level debug.
void LogWhatGrpcSays(LogLevel errors);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_RPC_GRPC_LOG_H_
