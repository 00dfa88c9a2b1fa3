// This rank's part of checkpoints: the output of a layer, from which another attempt may go on.
#ifndef SEQPAR_WORKER_EXECUTOR_CHECKPOINT_H_
#define SEQPAR_WORKER_EXECUTOR_CHECKPOINT_H_

#include <functional>
#include <string>

#include "common/base/data_roots.h"
#include "common/job/plan.h"
#include "seqpar/v1/fleet.pb.h"
#include "worker/executor/transfer.h"

namespace seqpar {

// One thread. A checkpoint that cannot be written is no failure of the job: it is logged, and the next one
// may be.
class CheckpointWriter {
 public:
  // `written` is called when this rank's bytes of the checkpoint after `layers` layers are on disk. All
  // outlive the writer.
  CheckpointWriter(const JobSpec& job, const v1::Checkpoints& checkpoints, const RankPlan& rank,
                   const DataRoots* roots, Transfers* transfers, std::function<void(int layers)> written)
      : job_(job),
        checkpoints_(checkpoints),
        rank_(rank),
        roots_(roots),
        transfers_(transfers),
        written_(std::move(written)) {}

  // `layers` are finished, counted from the job's first, and y ([own tokens * batch, hidden]) is the output
  // of the last of them: writes it where a checkpoint is due.
  void AfterLayer(int layers, const Matrix& y);

 private:
  absl::Status Write(int layers, const Matrix& y);

  const JobSpec& job_;
  const v1::Checkpoints& checkpoints_;
  const RankPlan& rank_;
  const DataRoots* const roots_;
  Transfers* const transfers_;
  const std::function<void(int layers)> written_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_CHECKPOINT_H_
