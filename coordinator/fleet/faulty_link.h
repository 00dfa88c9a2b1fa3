// The failpoints of the stream between a worker and the coordinator, on the coordinator's side.
#ifndef SEQPAR_COORDINATOR_FLEET_FAULTY_LINK_H_
#define SEQPAR_COORDINATOR_FLEET_FAULTY_LINK_H_

#include <memory>

#include "coordinator/fleet/node_link.h"
#include "seqpar/v1/fleet.pb.h"

namespace seqpar {

// Sends what `link` sends, past the failpoint of each message. With a message that is dropped goes all that
// follows: the link is closed.
std::shared_ptr<NodeLink> MakeFaultyLink(std::shared_ptr<NodeLink> link);

// Passes the failpoint of a message that has come. True where it is lost, and with it all that follows.
bool IsLost(const v1::WorkerMessage& message);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_FLEET_FAULTY_LINK_H_
