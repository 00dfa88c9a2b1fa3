#include "worker/executor/staging_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/failpoints.h"
#include "common/base/status.h"
#include "common/job/tensors.h"

namespace seqpar {
namespace {

absl::Status StorageError(absl::StatusCode code, const std::string& what) {
  return MakeError(code, reason::kStorage, what);
}

}  // namespace

absl::StatusOr<StagingFile> StagingFile::Open(const DataRoots& roots, const std::string& path,
                                              const JobSpec& job) {
  SafetensorsHeader layout;
  BuildOutputHeader(job, &layout);
  SEQPAR_ASSIGN_OR_RETURN(UniqueFd fd, roots.Open(path, O_WRONLY | O_NOFOLLOW));
  struct stat info = {};
  if (fstat(fd.get(), &info) != 0 || info.st_size != layout.file_bytes) {
    return StorageError(absl::StatusCode::kFailedPrecondition,
                        absl::StrCat("the staging file ", path, " has ", info.st_size,
                                     " bytes, the output needs ", layout.file_bytes));
  }
  return StagingFile(std::move(fd), path, std::move(layout));
}

absl::StatusOr<StagingFile> StagingFile::OpenCheckpoint(const DataRoots& roots, const std::string& path,
                                                        const JobSpec& job, bool write_header) {
  SafetensorsHeader layout;
  const std::string header = BuildCheckpointHeader(job, &layout);
  SEQPAR_ASSIGN_OR_RETURN(UniqueFd fd, roots.Open(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0666));
  // Not posix_fallocate: where the file system cannot allocate, that writes, and others write here too.
  int error = fallocate(fd.get(), 0, 0, layout.file_bytes) == 0 ? 0 : errno;
  if (error == EOPNOTSUPP) error = ftruncate(fd.get(), layout.file_bytes) == 0 ? 0 : errno;
  if (error != 0) {
    const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
    return StorageError(full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal,
                        absl::StrCat("cannot allocate ", path, ": ", std::strerror(error)));
  }
  if (write_header) {
    SEQPAR_RETURN_IF_ERROR(PwriteAll(fd.get(), header.data(), static_cast<int64_t>(header.size()), 0));
  }
  return StagingFile(std::move(fd), path, std::move(layout));
}

absl::Status StagingFile::Write(const std::string& tensor, const TensorBlock& block, const void* data) {
  const auto found = layout_.tensors.find(tensor);
  SEQPAR_CHECK(found != layout_.tensors.end());
  const TensorInfo& info = found->second;
  const MatrixShape shape = MatrixShapeOf(info.shape);
  SEQPAR_CHECK(block.rows.end <= shape.rows && block.cols.end <= shape.cols);
  const HandOverFailpoint point("executor.merge.piece");
  SEQPAR_RETURN_IF_ERROR(point.error());
  const int64_t element = SizeOf(info.dtype);
  const auto offset_of = [&](int64_t row) {
    return info.offset + (row * shape.cols + block.cols.begin) * element;
  };
  absl::Status written;
  if (block.cols.size() == shape.cols && block.row_stride == 1) {
    written =
        PwriteAll(fd_.get(), data, block.row_count() * shape.cols * element, offset_of(block.rows.begin));
  } else {
    const int64_t row_bytes = block.cols.size() * element;
    const char* from = static_cast<const char*>(data);
    for (int64_t row = block.rows.begin; row < block.rows.end && written.ok(); row += block.row_stride) {
      written = PwriteAll(fd_.get(), from, row_bytes, offset_of(row));
      from += row_bytes;
    }
  }
  if (written.ok()) return written;
  return StorageError(written.code(),
                      absl::StrCat("writing ", tensor, " to ", path_, ": ", written.message()));
}

absl::Status StagingFile::Sync() {
  if (fsync(fd_.get()) == 0) return absl::OkStatus();
  return StorageError(absl::StatusCode::kInternal,
                      absl::StrCat("fsync of ", path_, ": ", std::strerror(errno)));
}

}  // namespace seqpar
