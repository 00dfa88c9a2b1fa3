// Exchange between processes over UCX: shared memory and CMA on one host, TCP (or whatever UCX finds) between
// hosts.
//
// Bootstrap: every rank creates a worker, hands its AddressBlob to the others, and connects with the table of
// all blobs.
#ifndef SEQPAR_WORKER_COMM_UCX_UCX_ENDPOINT_H_
#define SEQPAR_WORKER_COMM_UCX_UCX_ENDPOINT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/comm/exchange_communicator.h"

namespace seqpar {

class UcxContext;

struct UcxConfig {
  // UCX_NET_DEVICES, e.g. "eth0". "": what the environment says, else "lo" (this host only).
  std::string net_devices;
  // UCX_TLS, e.g. "posix,cma,tcp,self". "": what the environment says, else UCX's choice.
  std::string tls;
};

// One rank's access to UCX. Not thread-safe; the endpoint is, and it may outlive the worker.
class UcxWorker {
 public:
  // UNAVAILABLE where UCX finds no transport for `config`.
  static absl::StatusOr<std::unique_ptr<UcxWorker>> Create(const UcxConfig& config);
  ~UcxWorker();

  // UCX version, interface, process and address, for the bootstrap. Bytes, not text.
  std::string AddressBlob() const;

  // The endpoint of `world_rank`; blobs by world rank, its own included. Once a worker. Connections are made
  // by the first messages. FAILED_PRECONDITION, reason BOOTSTRAP_MISMATCH, names the rank whose blob is
  // malformed, comes from another UCX version or has no transport in common; UNAVAILABLE, reason PEER_LOST,
  // one that is gone.
  absl::StatusOr<std::shared_ptr<Endpoint>> Connect(int world_rank, const std::vector<std::string>& blobs);

  // Version, settings, and after Connect the transports picked for each peer: for logs. Not while the
  // endpoint is in use.
  std::string Describe() const;

 private:
  explicit UcxWorker(std::shared_ptr<UcxContext> context);

  const std::shared_ptr<UcxContext> context_;
  bool connected_ = false;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_UCX_UCX_ENDPOINT_H_
