// One daemon of a node on its machine.
#ifndef SEQPAR_WORKER_DAEMON_NODE_LOCK_H_
#define SEQPAR_WORKER_DAEMON_NODE_LOCK_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/base/fd.h"

namespace seqpar {

// Takes what one daemon at a time has of `node` for `coordinator`: a lock in the state folder `folder`, which
// is made where it is not there. A coordinator gives away the devices of a daemon's predecessor when the
// daemon attaches: this is how it knows that there is no other, and so no executor of another. Held until it
// is closed, at the latest by the end of the process.
//
// One that is on its way out is waited for, for `wait_ms`. FAILED_PRECONDITION, with its pid, where it stays;
// CANCELLED where `stop_fd` can be read meanwhile. Not valid, with a warning in the log, where there can be
// no such file.
absl::StatusOr<UniqueFd> LockNode(const std::string& folder, const std::string& node,
                                  const std::string& coordinator, int wait_ms, int stop_fd);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_NODE_LOCK_H_
