// UCX's handles with their lifetimes, and its codes as Status.
#ifndef SEQPAR_WORKER_COMM_UCX_UCX_CONTEXT_H_
#define SEQPAR_WORKER_COMM_UCX_UCX_CONTEXT_H_

#include <ucp/api/ucp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/comm/ucx/peer_address.h"
#include "worker/comm/ucx/ucx_endpoint.h"

namespace seqpar {

// `status` is an error. What says that a peer or the way to it is gone is UNAVAILABLE with reason PEER_LOST,
// everything else INTERNAL.
absl::Status UcxError(ucs_status_t status, const std::string& what);

// A context with its worker and the endpoints made on it. One thread at a time.
class UcxContext {
 public:
  static absl::StatusOr<std::shared_ptr<UcxContext>> Create(const UcxConfig& config);
  ~UcxContext();
  UcxContext(const UcxContext&) = delete;
  UcxContext& operator=(const UcxContext&) = delete;

  ucp_worker_h worker() const { return worker_; }
  // Readable after ucp_worker_arm when there is something to progress; -1 where the transports cannot tell.
  int event_fd() const { return event_fd_; }
  const PeerAddress& address() const { return address_; }
  std::string Describe() const;

  // By world rank, null for the own one; all of them null before Connect.
  absl::Status Connect(int world_rank, const std::vector<PeerAddress>& peers);
  ucp_ep_h peer(int world_rank) const { return peers_[world_rank]; }

 private:
  UcxContext() = default;
  absl::Status Open(const UcxConfig& config, bool wakeup);
  absl::Status ReadAddress();
  void Close();

  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int event_fd_ = -1;
  PeerAddress address_;
  std::vector<ucp_ep_h> peers_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_UCX_UCX_CONTEXT_H_
