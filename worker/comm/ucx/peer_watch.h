// Learns of the death of peers that run on the same machine. UCX without its own error handling (which would
// cost shared memory) never reports a peer that died while we only wait for its message.
#ifndef SEQPAR_WORKER_COMM_UCX_PEER_WATCH_H_
#define SEQPAR_WORKER_COMM_UCX_PEER_WATCH_H_

#include <vector>

#include "common/base/fd.h"
#include "worker/comm/ucx/peer_address.h"

namespace seqpar {

// One thread at a time.
class PeerWatch {
 public:
  // `peers` by world rank; those of other machines, of other process namespaces and of this process are not
  // watched.
  explicit PeerWatch(const std::vector<ProcessIdentity>& peers);
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;

  // Readable while a death has not been taken note of by Update; -1 where nobody is watched.
  int fd() const { return epoll_.get(); }
  // Without blocking.
  void Update();
  bool dead(int world_rank) const { return deaths_[world_rank] != 0; }
  // Of those that are dead: whether `a` died before `b`. Those that follow another into death are no first
  // cause.
  bool DiedBefore(int a, int b) const { return deaths_[a] < deaths_[b]; }

 private:
  UniqueFd epoll_;                   // owns nothing where nobody is watched
  std::vector<UniqueFd> processes_;  // by world rank, owns nothing where not watched
  std::vector<int> deaths_;          // by world rank, 0 while alive, then the number of the death
  int deaths_seen_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_UCX_PEER_WATCH_H_
