// JobService and ClusterService over gRPC: the edge of JobApi.
#ifndef SEQPAR_COORDINATOR_API_SERVICES_H_
#define SEQPAR_COORDINATOR_API_SERVICES_H_

#include <memory>
#include <vector>

#include "coordinator/api/call_gate.h"
#include "coordinator/api/job_api.h"
#include "coordinator/engine/task_pool.h"

namespace grpc {
class Service;
}

namespace seqpar {

// Calls run on `pool`: a gRPC thread never waits.
class ApiServices {
 public:
  // All outlive the services.
  ApiServices(JobApi* api, TaskPool* pool, const CallGate* gate);
  ~ApiServices();
  // To register with a server, which must be gone before this is.
  std::vector<grpc::Service*> services() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_SERVICES_H_
