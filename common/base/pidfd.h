// A process as a descriptor: its id may be another's once it has ended, this never is.
#ifndef SEQPAR_COMMON_BASE_PIDFD_H_
#define SEQPAR_COMMON_BASE_PIDFD_H_

#include <sys/types.h>

#include "common/base/fd.h"

namespace seqpar {

// Readable (poll, epoll) once the process has ended; closed on exec. Owns nothing, and errno says why, where
// it cannot be: ESRCH where no process has the id.
UniqueFd OpenProcess(pid_t pid);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_PIDFD_H_
