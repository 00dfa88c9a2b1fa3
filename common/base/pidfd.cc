#include "common/base/pidfd.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace seqpar {

// By its number: glibc 2.36 declares pidfd_open without C linkage.
UniqueFd OpenProcess(pid_t pid) { return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))); }

}  // namespace seqpar
