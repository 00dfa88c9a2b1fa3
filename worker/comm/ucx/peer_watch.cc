#include "worker/comm/ucx/peer_watch.h"

#include <sys/epoll.h>

#include <cerrno>
#include <utility>

#include "common/base/pidfd.h"

namespace seqpar {

PeerWatch::PeerWatch(const std::vector<ProcessIdentity>& peers)
    : processes_(peers.size()), deaths_(peers.size(), 0) {
  const ProcessIdentity self = ProcessIdentity::Self();
  for (size_t rank = 0; rank < peers.size(); ++rank) {
    const ProcessIdentity& peer = peers[rank];
    if (peer.machine != self.machine || peer.pid == self.pid) continue;
    UniqueFd process = OpenProcess(static_cast<pid_t>(peer.pid));
    // Another process may have its id by now: then the peer is as dead as when nobody has it. Any other
    // refusal (a kernel or a sandbox without these descriptors) leaves the peer unwatched.
    if (!process.valid() ? errno == ESRCH : ProcessStartTicks(peer.pid) != peer.start_ticks)
      deaths_[rank] = ++deaths_seen_;
    if (!process.valid()) continue;
    if (!epoll_.valid()) epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = rank;
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, process.get(), &event);
    processes_[rank] = std::move(process);
  }
}

void PeerWatch::Update() {
  if (!epoll_.valid()) return;
  epoll_event events[16];
  for (int n = 1; n > 0;) {
    n = epoll_wait(epoll_.get(), events, 16, 0);
    for (int i = 0; i < n; ++i) {
      const auto rank = static_cast<size_t>(events[i].data.u64);
      deaths_[rank] = ++deaths_seen_;
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, processes_[rank].get(), nullptr);
    }
  }
}

}  // namespace seqpar
