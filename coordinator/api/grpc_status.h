// Errors on the wire: google.rpc details in the trailing metadata "grpc-status-details-bin".
#ifndef SEQPAR_COORDINATOR_API_GRPC_STATUS_H_
#define SEQPAR_COORDINATOR_API_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace seqpar {

// Every error gets an ErrorInfo; one without a reason of its own has the name of its code. Clients refuse
// trailers above 8 KiB, so details that would not fit lose their last violations, and the message says how
// many.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_GRPC_STATUS_H_
