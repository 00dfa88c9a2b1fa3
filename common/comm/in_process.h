// Ranks as threads of one process: for tests and one-process runs.
#ifndef SEQPAR_COMMON_COMM_IN_PROCESS_H_
#define SEQPAR_COMMON_COMM_IN_PROCESS_H_

#include <memory>
#include <vector>

#include "common/comm/exchange_communicator.h"

namespace seqpar {

// One endpoint for each of `size` ranks, which share a mailbox. The receiver copies; a send completes when
// its message was copied. Destroying or aborting an endpoint whose rank still takes part counts as that
// peer's death. `bytes_per_second` > 0 slows every (sender, receiver) link to that rate, for overlap tests.
std::vector<std::shared_ptr<Endpoint>> MakeInProcessWorld(int size, double bytes_per_second = 0);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_COMM_IN_PROCESS_H_
