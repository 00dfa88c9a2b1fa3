// Ties a process that the daemon started to the daemon's life.
#ifndef SEQPAR_WORKER_EXECUTOR_DIE_WITH_PARENT_H_
#define SEQPAR_WORKER_EXECUTOR_DIE_WITH_PARENT_H_

namespace seqpar {

// Kills this process when its parent's thread that started it ends, however that ends. What happened before
// the call goes unnoticed: see EndWithPipe.
void DieWithParent();

// Ends this process (kExitOrphaned) once nobody holds the other end of `fd`, a pipe or a socket, any more.
// Starts a thread that ends with the process; `fd` stays open as long.
void EndWithPipe(int fd);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_DIE_WITH_PARENT_H_
