// One stream to a worker, as the engine sees it: no gRPC here.
#ifndef SEQPAR_COORDINATOR_FLEET_NODE_LINK_H_
#define SEQPAR_COORDINATOR_FLEET_NODE_LINK_H_

#include "absl/status/status.h"
#include "seqpar/v1/fleet.pb.h"

namespace seqpar {

// Thread-safe. Neither call waits; messages arrive in order or, where the stream breaks, not at all. It
// breaks too where more waits than a worker may leave unread (api/stream_writer.h).
class NodeLink {
 public:
  virtual ~NodeLink() = default;
  virtual void Send(v1::CoordinatorMessage message) = 0;
  // What was sent before is still written.
  virtual void Close(const absl::Status& why) = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_FLEET_NODE_LINK_H_
