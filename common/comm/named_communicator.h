// Communication under its own names in the spans of streams.
#ifndef SEQPAR_COMMON_COMM_NAMED_COMMUNICATOR_H_
#define SEQPAR_COMMON_COMM_NAMED_COMMUNICATOR_H_

#include <memory>

#include "common/comm/communicator.h"

namespace seqpar {

// Everything goes to `inner`; what it enqueues is called by its operation (OperationName; barriers
// "barrier"), also in groups split from it.
std::unique_ptr<Communicator> MakeNamedCommunicator(std::unique_ptr<Communicator> inner);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_COMM_NAMED_COMMUNICATOR_H_
