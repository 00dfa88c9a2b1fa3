#include "worker/executor/checkpoint.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/job/tensors.h"
#include "worker/executor/shard.h"
#include "worker/executor/staging_file.h"

namespace seqpar {

void CheckpointWriter::AfterLayer(int layers, const Matrix& y) {
  const auto& due = checkpoints_.after_layers();
  if (std::find(due.begin(), due.end(), layers) == due.end()) return;
  if (const absl::Status status = Write(layers, y); !status.ok()) {
    return LogWarning("no checkpoint", {{"layers", layers}, {"error", status.message()}});
  }
  LogInfo("checkpoint", {{"layers", layers}});
  written_(layers);
}

absl::Status CheckpointWriter::Write(int layers, const Matrix& y) {
  const std::string path = absl::StrCat(checkpoints_.staging_file(), layers, ".partial");
  SEQPAR_RETURN_IF_ERROR(Failpoint("executor.checkpoint.open"));
  SEQPAR_ASSIGN_OR_RETURN(StagingFile file,
                          StagingFile::OpenCheckpoint(*roots_, path, job_, rank_.rank == 0));
  {
    const HandOverFailpoint point("executor.checkpoint.write");
    SEQPAR_RETURN_IF_ERROR(point.error());
    SEQPAR_RETURN_IF_ERROR(transfers_->StoreTokens(y, rank_.tokens, &file, TokenTensor(job_, kHiddenStates)));
  }
  const HandOverFailpoint point("executor.checkpoint.fsync");
  SEQPAR_RETURN_IF_ERROR(point.error());
  return file.Sync();
}

}  // namespace seqpar
