// This rank's bytes of the output: every byte of the staging file's tensors is written by exactly one rank.
#ifndef SEQPAR_WORKER_EXECUTOR_MERGE_H_
#define SEQPAR_WORKER_EXECUTOR_MERGE_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/job/plan.h"
#include "common/layers/weight_table.h"
#include "worker/executor/staging_file.h"
#include "worker/executor/transfer.h"

namespace seqpar {

// One thread. Without an output file every call does nothing.
class OutputWriter {
 public:
  // `transfers` outlives the writer.
  static absl::StatusOr<OutputWriter> Open(const JobSpec& job, const TokenShare& tokens,
                                           const DataRoots& roots, const std::string& staging_file,
                                           Transfers* transfers);

  // The rows of the rank's tokens, [own tokens * batch, hidden] of the job's dtype; `name` is kHiddenStates
  // or kHiddenStatesGrad. Nothing where the job's output does not ask for it.
  absl::Status WriteTokens(const std::string& name, const Matrix& rows);
  // One layer's reduced gradients: those parts of which the table says that this rank writes them.
  absl::Status WriteWeightGradients(int layer, const WeightSet& gradients);
  absl::Status Sync();

 private:
  OutputWriter(const JobSpec& job, const TokenShare& tokens, Transfers* transfers)
      : job_(job), tokens_(tokens), transfers_(transfers) {}

  JobSpec job_;
  TokenShare tokens_;
  Transfers* transfers_;
  std::optional<StagingFile> file_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_MERGE_H_
