#include "worker/comm/ucx/peer_watch.h"

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace seqpar {
namespace {

int OpenProcess(int64_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0)); }

}  // namespace

PeerWatch::PeerWatch(const std::vector<ProcessIdentity>& peers)
    : process_fds_(peers.size(), -1), deaths_(peers.size(), 0) {
  const ProcessIdentity self = ProcessIdentity::Self();
  for (size_t rank = 0; rank < peers.size(); ++rank) {
    const ProcessIdentity& peer = peers[rank];
    if (peer.machine != self.machine || peer.pid == self.pid) continue;
    const int fd = OpenProcess(peer.pid);
    // Another process may have its id by now: then the peer is as dead as when nobody has it. Any other
    // refusal (a kernel or a sandbox without these descriptors) leaves the peer unwatched.
    if (fd < 0 ? errno == ESRCH : ProcessStartTicks(peer.pid) != peer.start_ticks)
      deaths_[rank] = ++deaths_seen_;
    if (fd < 0) continue;
    if (epoll_ < 0) epoll_ = epoll_create1(EPOLL_CLOEXEC);
    process_fds_[rank] = fd;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = rank;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }
}

PeerWatch::~PeerWatch() {
  for (const int fd : process_fds_) {
    if (fd >= 0) close(fd);
  }
  if (epoll_ >= 0) close(epoll_);
}

void PeerWatch::Update() {
  if (epoll_ < 0) return;
  epoll_event events[16];
  for (int n = 1; n > 0;) {
    n = epoll_wait(epoll_, events, 16, 0);
    for (int i = 0; i < n; ++i) {
      const auto rank = static_cast<size_t>(events[i].data.u64);
      deaths_[rank] = ++deaths_seen_;
      epoll_ctl(epoll_, EPOLL_CTL_DEL, process_fds_[rank], nullptr);
    }
  }
}

}  // namespace seqpar
