// FleetService over gRPC: the edge between workers' streams and the engine.
#ifndef SEQPAR_COORDINATOR_FLEET_FLEET_SERVICE_H_
#define SEQPAR_COORDINATOR_FLEET_FLEET_SERVICE_H_

#include <memory>

#include "coordinator/api/call_gate.h"
#include "coordinator/engine/engine.h"

namespace grpc {
class Service;
}

namespace seqpar {

class FleetServiceEdge {
 public:
  // Both outlive the edge.
  FleetServiceEdge(Engine* engine, const CallGate* gate);
  ~FleetServiceEdge();
  // To register with a server, which must be gone before this is.
  grpc::Service* service() const;
  // Streams opened from now on are refused.
  void RefuseStreams();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_FLEET_FLEET_SERVICE_H_
