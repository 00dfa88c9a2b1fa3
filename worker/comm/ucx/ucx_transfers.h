// The messages of one Exchange as UCX requests.
//
// Tag, from the high bits: channel (24), sender's world rank (16), number of the message among those of this
// channel from that sender to that receiver (24, wraps). So the order of arrival does not matter, and the
// n-th receive from a peer meets its n-th send whatever their sizes are. A message of one span is sent from
// and received in place; others go through a bounce buffer.
#ifndef SEQPAR_WORKER_COMM_UCX_UCX_TRANSFERS_H_
#define SEQPAR_WORKER_COMM_UCX_UCX_TRANSFERS_H_

#include <ucp/api/ucp.h>

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/comm/communicator.h"
#include "worker/comm/ucx/bounce_pool.h"
#include "worker/comm/ucx/ucx_context.h"

namespace seqpar {

// What the exchanges of one endpoint share. One thread at a time.
struct UcxTransferState {
  UcxContext* context = nullptr;
  int world_rank = 0;
  BouncePool bounce;
  std::map<std::pair<uint32_t, int>, uint32_t> sent, received;  // messages so far by (channel, peer)
};

// One thread at a time. Must not go while unfinished() unless the worker is never progressed again.
class UcxTransfers {
 public:
  // Posts all. `sends` and `recvs` stay valid until finished or cancelled.
  UcxTransfers(UcxTransferState* state, uint32_t channel, const std::vector<Transfer>& sends,
               const std::vector<Transfer>& recvs);

  // Takes note of what is complete. An error is the first one: of UCX, or sizes that disagree.
  absl::Status Poll();
  // World rank of a peer that is waited for; -1 when finished.
  int waiting_for() const;
  bool unfinished() const { return waiting_for() >= 0; }
  // Whether a send is unfinished.
  bool sends() const;
  // World ranks of every peer that is waited for.
  std::vector<int> peers() const;
  // Gives up what can be given up; Poll until finished to know when the memory is free of UCX, without regard
  // to errors.
  void Cancel();

 private:
  struct Operation {
    bool receives = false;
    bool pending = true;
    const Transfer* transfer = nullptr;
    int64_t bytes = 0;
    void* request = nullptr;
    ucp_tag_recv_info_t info{};
    BouncePool::Block bounce;
  };

  void Post(uint32_t channel, const Transfer& transfer, bool receives);
  absl::Status Finish(Operation& operation, ucs_status_t status);

  UcxTransferState* const state_;
  const uint32_t channel_;
  bool cancelled_ = false;
  absl::Status error_;
  std::vector<Operation> operations_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_UCX_UCX_TRANSFERS_H_
