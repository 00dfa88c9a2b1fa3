#include "worker/executor/die_with_parent.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <thread>

#include "worker/executor/channel.h"

namespace seqpar {

void DieWithParent() { prctl(PR_SET_PDEATHSIG, SIGKILL); }

void EndWithPipe(int fd) {
  std::thread([fd] {
    pollfd end = {fd, 0, 0};  // POLLHUP and POLLERR are told unasked
    while (poll(&end, 1, -1) < 0 || end.revents == 0) {
    }
    _exit(kExitOrphaned);
  }).detach();
}

}  // namespace seqpar
