// One rank of a gang that measures the link between two nodes, in the place of a job's rank (rank_run.h).
#ifndef SEQPAR_WORKER_EXECUTOR_LINK_RUN_H_
#define SEQPAR_WORKER_EXECUTOR_LINK_RUN_H_

#include "absl/status/statusor.h"
#include "worker/executor/rank_run.h"

namespace seqpar {

// Runs the phases bootstrap and execute of StartRanks.measure_link in this thread: connects as any gang does,
// then MeasureLink with every rank of it. The event says FINISHED, with what was measured. Errors as
// RunRank's.
absl::StatusOr<v1::RankEvent> RunLinkRank(const RankContext& context);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_LINK_RUN_H_
