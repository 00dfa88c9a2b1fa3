// One rank of one attempt, from bootstrap to report.
#ifndef SEQPAR_WORKER_EXECUTOR_RANK_RUN_H_
#define SEQPAR_WORKER_EXECUTOR_RANK_RUN_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "seqpar/v1/executor.pb.h"
#include "worker/executor/blob_inbox.h"
#include "worker/executor/progress.h"
#include "worker/executor/trace_recorder.h"

namespace seqpar {

struct RankContext {
  const v1::Run* run = nullptr;
  int rank = 0;
  Progress* progress = nullptr;
  TraceRecorder* trace = nullptr;
  BlobInbox* blobs = nullptr;
  std::function<void(int layers)> checkpointed;  // this rank's part of a checkpoint is on disk
  std::function<void(std::string)> send_blob;    // this rank's part of the bootstrap of group "world"
};

// Runs the phases bootstrap, shard, execute, merge and report in this thread. The event says FINISHED, with
// the rank's report; its bytes are on disk then. Errors: PEER_LOST where another rank is gone; anything else
// is this rank's own.
absl::StatusOr<v1::RankEvent> RunRank(const RankContext& context);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_RANK_RUN_H_
