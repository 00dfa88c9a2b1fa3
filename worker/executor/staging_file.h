// The staging file of an attempt: every rank writes exactly its bytes (docs/reliability.md).
#ifndef SEQPAR_WORKER_EXECUTOR_STAGING_FILE_H_
#define SEQPAR_WORKER_EXECUTOR_STAGING_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/data_roots.h"
#include "common/base/fd.h"
#include "common/job/job.h"
#include "common/tensor/safetensors.h"
#include "worker/executor/tensor_reader.h"

namespace seqpar {

// One thread at a time.
class StagingFile {
 public:
  // `path` was allocated in full by the coordinator, with its header: NOT_FOUND or FAILED_PRECONDITION where
  // it is gone or has another size than the job's output.
  static absl::StatusOr<StagingFile> Open(const DataRoots& roots, const std::string& path,
                                          const JobSpec& job);
  // A checkpoint of the job: whichever rank comes first creates it, each allocates all of it, one of them
  // (`write_header`) writes its header. RESOURCE_EXHAUSTED where the disk is full.
  static absl::StatusOr<StagingFile> OpenCheckpoint(const DataRoots& roots, const std::string& path,
                                                    const JobSpec& job, bool write_header);

  bool Has(const std::string& tensor) const { return layout_.tensors.count(tensor) != 0; }
  // Writes a block of a tensor (see MatrixShapeOf) from host memory: rows of the block's columns one after
  // the other, of the tensor's type in the file.
  absl::Status Write(const std::string& tensor, const TensorBlock& block, const void* data);
  absl::Status Sync();

 private:
  StagingFile(UniqueFd fd, std::string path, SafetensorsHeader layout)
      : fd_(std::move(fd)), path_(std::move(path)), layout_(std::move(layout)) {}

  UniqueFd fd_;
  std::string path_;
  SafetensorsHeader layout_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_STAGING_FILE_H_
