// The executor: a child process that drives one device for one rank of one attempt, and never outlives it.
#ifndef SEQPAR_WORKER_EXECUTOR_EXECUTOR_H_
#define SEQPAR_WORKER_EXECUTOR_EXECUTOR_H_

namespace seqpar {

// `seqpar-worker executor --channel-fd N [--test-hold PHASE:FILE]... [--test-failpoints DIR]`: reads Run from
// the channel, runs the rank, sends FINISHED or FAILED, and returns the exit code. Also ends the process by
// itself: when the channel closes, when its lease passes, and after Abort.
int ExecutorMain(int argc, char** argv);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_EXECUTOR_H_
