// CPU time of this process's threads, by name.
#ifndef SEQPAR_WORKER_EXECUTOR_THREAD_TIMES_H_
#define SEQPAR_WORKER_EXECUTOR_THREAD_TIMES_H_

namespace seqpar {

// Seconds that the living threads whose name ends in "compute" (the compute stream and the device's pool)
// have run on a processor. 0 where the kernel does not account for it.
double ComputeThreadSeconds();

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_THREAD_TIMES_H_
