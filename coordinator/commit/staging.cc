#include "coordinator/commit/staging.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/fd.h"
#include "common/base/status.h"
#include "common/base/units.h"
#include "common/job/tensors.h"

namespace seqpar {
namespace {

absl::Status StorageError(int error, const std::string& what) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) code = absl::StatusCode::kResourceExhausted;
  if (error == ENOENT || error == ENOTDIR) code = absl::StatusCode::kNotFound;
  if (error == EACCES || error == EPERM || error == EROFS) code = absl::StatusCode::kPermissionDenied;
  if (error == EEXIST || error == EISDIR) code = absl::StatusCode::kAlreadyExists;
  return MakeError(code, reason::kStorage, absl::StrCat(what, ": ", std::strerror(error)));
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : (slash == 0 ? "/" : path.substr(0, slash));
}

absl::Status SyncFolder(const std::string& folder) {
  const UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || fsync(fd.get()) != 0) return StorageError(errno, absl::StrCat("sync of ", folder));
  return absl::OkStatus();
}

bool Exists(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0;
}

bool SameFile(const std::string& a, const std::string& b) {
  struct stat x, y;
  return lstat(a.c_str(), &x) == 0 && lstat(b.c_str(), &y) == 0 && x.st_dev == y.st_dev &&
         x.st_ino == y.st_ino;
}

// Gives `staging` the name `target`, which must be free. A hard link does it where the file system cannot
// refuse an existing target in a rename.
absl::Status RenameToFreeName(const std::string& staging, const std::string& target) {
  if (renameat2(AT_FDCWD, staging.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) == 0)
    return absl::OkStatus();
  if (errno != EINVAL && errno != ENOSYS) return StorageError(errno, absl::StrCat("rename to ", target));
  if (link(staging.c_str(), target.c_str()) != 0)
    return StorageError(errno, absl::StrCat("link to ", target));
  if (unlink(staging.c_str()) != 0) return StorageError(errno, absl::StrCat("unlink of ", staging));
  return absl::OkStatus();
}

}  // namespace

std::string StagingPath(const std::string& target, const std::string& job, int attempt) {
  const size_t slash = target.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  return absl::StrCat(target.substr(0, name), ".", target.substr(name), ".seqpar-", job, "-", attempt,
                      ".partial");
}

absl::Status CheckInputs(const std::map<std::string, FileFingerprint>& inputs) {
  for (const auto& [path, expected] : inputs) {
    const absl::StatusOr<FileFingerprint> found = FingerprintFile(path);
    if (found.ok() && *found == expected) continue;
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInputChanged,
                     absl::StrCat(path, " is no longer what it was when the job was submitted",
                                  found.ok() ? std::string() : absl::StrCat(": ", found.status().message())));
  }
  return absl::OkStatus();
}

absl::Status PrepareStaging(const JobSpec& spec, const std::string& job, int attempt) {
  if (spec.output_file.empty()) return absl::OkStatus();
  // The file of an earlier process of the coordinator may have this attempt's name too: it was never used.
  UnlinkStaging(spec, job, attempt);
  const std::string path = StagingPath(spec.output_file, job, attempt);
  const UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!fd.valid()) return StorageError(errno, absl::StrCat("staging file ", path));
  SafetensorsHeader layout;
  const std::string header = BuildOutputHeader(spec, &layout);
  const int64_t bytes = layout.file_bytes;
  absl::Status status;
  if (const int error = posix_fallocate(fd.get(), 0, bytes); error != 0) {
    status = StorageError(
        error, absl::StrCat("staging file ", path, " of ", FormatBytes(static_cast<double>(bytes))));
  }
  if (status.ok()) status = PwriteAll(fd.get(), header.data(), static_cast<int64_t>(header.size()), 0);
  if (status.ok() && fsync(fd.get()) != 0) status = StorageError(errno, absl::StrCat("sync of ", path));
  if (status.ok()) status = SyncFolder(FolderOf(path));
  if (!status.ok()) unlink(path.c_str());
  return status;
}

absl::Status SyncStaging(const JobSpec& spec, const std::string& job, int attempt) {
  if (spec.output_file.empty()) return absl::OkStatus();
  const std::string path = StagingPath(spec.output_file, job, attempt);
  const UniqueFd fd(open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid() || fsync(fd.get()) != 0) return StorageError(errno, absl::StrCat("sync of ", path));
  return absl::OkStatus();
}

absl::Status CommitStaging(const JobSpec& spec, const std::string& job, int attempt) {
  const std::string& target = spec.output_file;
  if (target.empty()) return absl::OkStatus();
  const std::string staging = StagingPath(target, job, attempt);
  if (!Exists(staging)) {
    // Repeated after a crash: renamed already.
    if (!Exists(target)) return StorageError(ENOENT, absl::StrCat("staging file ", staging));
  } else if (SameFile(staging, target)) {
    // Repeated after a crash between link and unlink.
    if (unlink(staging.c_str()) != 0) return StorageError(errno, absl::StrCat("unlink of ", staging));
  } else if (spec.overwrite) {
    if (rename(staging.c_str(), target.c_str()) != 0) {
      return StorageError(errno, absl::StrCat("rename to ", target));
    }
  } else {
    SEQPAR_RETURN_IF_ERROR(RenameToFreeName(staging, target));
  }
  return SyncFolder(FolderOf(target));
}

void UnlinkStaging(const JobSpec& spec, const std::string& job, int attempt) {
  if (spec.output_file.empty()) return;
  for (int i = 1; i <= attempt; ++i) unlink(StagingPath(spec.output_file, job, i).c_str());
}

}  // namespace seqpar
