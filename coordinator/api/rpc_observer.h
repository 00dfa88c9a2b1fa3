// Sees every call of a gRPC server, whatever service it belongs to.
#ifndef SEQPAR_COORDINATOR_API_RPC_OBSERVER_H_
#define SEQPAR_COORDINATOR_API_RPC_OBSERVER_H_

#include <string>

namespace grpc {
class ServerBuilder;
}

namespace seqpar {

// Thread-safe; calls must not wait for anything.
class RpcObserver {
 public:
  virtual ~RpcObserver() = default;
  // `method`: "seqpar.v1.JobService/GetJob". Each Begun is followed by one Ended.
  virtual void Begun(const std::string& method) = 0;
  // `code`: "OK", "NOT_FOUND", ... as gRPC names them; CANCELLED where the client went away first.
  virtual void Ended(const std::string& method, const std::string& code, double seconds) = 0;
};

// Shows `observer`, which outlives the server, the calls of the server that `builder` makes.
void ObserveRpcs(RpcObserver* observer, grpc::ServerBuilder* builder);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_RPC_OBSERVER_H_
