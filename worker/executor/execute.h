// The third phase: the layers, forward and backward, and what it took.
#ifndef SEQPAR_WORKER_EXECUTOR_EXECUTE_H_
#define SEQPAR_WORKER_EXECUTOR_EXECUTE_H_

#include "absl/status/statusor.h"
#include "common/job/plan.h"
#include "seqpar/v1/report.pb.h"
#include "worker/executor/bootstrap.h"
#include "worker/executor/checkpoint.h"
#include "worker/executor/merge.h"
#include "worker/executor/progress.h"
#include "worker/executor/shard.h"
#include "worker/executor/stopwatch.h"
#include "worker/executor/trace_recorder.h"
#include "worker/executor/verify.h"

namespace seqpar {

struct ExecuteFigures {
  PassFigures forward, backward;  // backward is all 0 where the job has none

  PassFigures total() const { return forward + backward; }
};

// Runs the stack; gradients of weights go to `writer` layer by layer, because the stack keeps one layer's at
// a time.
// `verifier` checks every layer; null: none. `trace` is told which layer runs while its seconds count.
absl::StatusOr<ExecuteFigures> Execute(const JobSpec& job, const RankRuntime& runtime, ShardedModel* model,
                                       OutputWriter* writer, CheckpointWriter* checkpoints,
                                       Verifier* verifier, Progress* progress, TraceRecorder* trace);

// This rank's part of the job's model flops from `first_layer` on: its heads' attended pairs, and of the rest
// its share of tokens.
double RankFlops(const JobSpec& job, const Plan& plan, int rank, int first_layer);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_EXECUTE_H_
