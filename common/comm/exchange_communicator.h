// The collectives, written once over a grouped exchange: a backend supplies an Endpoint, everything else is
// here.
#ifndef SEQPAR_COMMON_COMM_EXCHANGE_COMMUNICATOR_H_
#define SEQPAR_COMMON_COMM_EXCHANGE_COMMUNICATOR_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "common/comm/communicator.h"

namespace seqpar {

// A rank's access to every rank of the world: what a transport backend implements. Peers are world ranks.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  virtual int world_rank() const = 0;
  virtual int world_size() const = 0;
  // Runs on the host, in a stream's thread: posts every receive and send, returns when all are complete
  // (sends: the memory may be reused). Messages are matched by (channel, sender, order of posting). Calls on
  // different channels may run at the same time from different threads. `waiting_for` is kept up to date with
  // a world rank that is waited for, or -1. Errors: peer lost (UNAVAILABLE, reason PEER_LOST, names the
  // rank), aborted (Abort's status), sizes that disagree (INTERNAL, names the edge).
  virtual absl::Status Exchange(uint32_t channel, const std::vector<Transfer>& sends,
                                const std::vector<Transfer>& recvs, std::atomic<int>* waiting_for) = 0;
  // From any thread; sticky; wakes every blocked Exchange within 100 ms.
  virtual void Abort(const absl::Status& why) = 0;
};

// The communicator of the whole world over `endpoint`. Reductions and copies use `device`'s kernels; both
// outlive it and its splits. `traffic` may be null.
std::unique_ptr<Communicator> MakeExchangeCommunicator(std::shared_ptr<Endpoint> endpoint, Device* device,
                                                       TrafficCounter* traffic);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_COMM_EXCHANGE_COMMUNICATOR_H_
