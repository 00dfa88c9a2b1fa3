#include "worker/executor/merge.h"

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/status.h"
#include "common/job/tensors.h"
#include "worker/executor/shard.h"

namespace seqpar {

absl::StatusOr<OutputWriter> OutputWriter::Open(const JobSpec& job, const TokenShare& tokens,
                                                const DataRoots& roots, const std::string& staging_file,
                                                Transfers* transfers) {
  OutputWriter writer(job, tokens, transfers);
  if (staging_file.empty()) return writer;
  SEQPAR_RETURN_IF_ERROR(Failpoint("executor.staging.open"));
  SEQPAR_ASSIGN_OR_RETURN(writer.file_, StagingFile::Open(roots, staging_file, job));
  return writer;
}

absl::Status OutputWriter::WriteTokens(const std::string& name, const Matrix& rows) {
  if (!file_.has_value() || !file_->Has(name)) return absl::OkStatus();
  const HandOverFailpoint point("executor.merge.write");
  SEQPAR_RETURN_IF_ERROR(point.error());
  return transfers_->StoreTokens(rows, tokens_, &*file_, TokenTensor(job_, name));
}

absl::Status OutputWriter::WriteWeightGradients(int layer, const WeightSet& gradients) {
  if (!file_.has_value() || !job_.output_weight_grads) return absl::OkStatus();
  for (const WeightSlice& slice : gradients.table().slices()) {
    if (slice.written_rows.size() <= 0) continue;
    const Matrix written =
        AsBlock(gradients, slice)
            .Rows(slice.written_rows.begin - slice.rows.begin, slice.written_rows.end - slice.rows.begin);
    SEQPAR_RETURN_IF_ERROR(transfers_->Store(written, &*file_,
                                             absl::StrCat(WeightName(layer, slice), ".grad"),
                                             {slice.written_rows, 1, slice.cols}));
  }
  return absl::OkStatus();
}

absl::Status OutputWriter::Sync() {
  if (!file_.has_value()) return absl::OkStatus();
  const HandOverFailpoint point("executor.merge.fsync");
  SEQPAR_RETURN_IF_ERROR(point.error());
  return file_->Sync();
}

}  // namespace seqpar
