// UCX's messages in our log.
#ifndef SEQPAR_WORKER_COMM_UCX_UCX_LOG_H_
#define SEQPAR_WORKER_COMM_UCX_UCX_LOG_H_

namespace seqpar {

// From now on UCX writes to our log, at the level that UCX_LOG_LEVEL lets through. Besides, a peer that dies
// while CMA reads from it no longer ends this process: UCX 1.13 logs that as fatal, and it is its own
// printing of a fatal message that aborts. The request then fails like any other. (Assertions and ucs_fatal
// still abort.) Thread-safe; does it once.
void RouteUcxLog();

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_UCX_UCX_LOG_H_
