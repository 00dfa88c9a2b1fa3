#include "coordinator/commit/staging.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/fd.h"
#include "common/base/log.h"
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

std::string NameOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

// The folder of a job's output, opened beneath its data root: files of the job are named in it.
class OutputFolder {
 public:
  static absl::StatusOr<OutputFolder> Open(const DataRoots& roots, const std::string& target) {
    const std::string path = FolderOf(target);
    SEQPAR_ASSIGN_OR_RETURN(UniqueFd fd, roots.Open(path, O_RDONLY | O_DIRECTORY));
    return OutputFolder(std::move(fd), path);
  }

  int fd() const { return fd_.get(); }
  UniqueFd OpenFile(const std::string& name, int flags, mode_t mode = 0) const {
    return UniqueFd(openat(fd(), name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode));
  }
  bool Stat(const std::string& name, struct stat* info) const {
    return fstatat(fd(), name.c_str(), info, AT_SYMLINK_NOFOLLOW) == 0;
  }
  bool Has(const std::string& name) const {
    struct stat info;
    return Stat(name, &info);
  }
  bool Unlink(const std::string& name) const { return unlinkat(fd(), name.c_str(), 0) == 0; }
  absl::Status Sync() const {
    if (fsync(fd()) == 0) return absl::OkStatus();
    return StorageError(errno, absl::StrCat("sync of ", path_));
  }
  std::string Path(const std::string& name) const { return absl::StrCat(path_, "/", name); }

  // The names in it.
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(dup(fd())), closedir);
    if (entries == nullptr) return names;
    rewinddir(entries.get());
    while (const dirent* entry = readdir(entries.get())) names.emplace_back(entry->d_name);
    return names;
  }

 private:
  OutputFolder(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
};

constexpr char kCheckpoint[] = ".checkpoint-";

// Of the names of all checkpoints of a job.
std::string CheckpointPrefix(const std::string& target, const std::string& job) {
  return absl::StrCat(".", NameOf(target), ".seqpar-", job, "-");
}

// Unlinks the checkpoints of a job, whole or not, of which `over` says so.
void UnlinkWhere(const DataRoots& roots, const std::string& target, const std::string& job,
                 const std::function<bool(const CheckpointName&)>& over) {
  const absl::StatusOr<OutputFolder> folder = OutputFolder::Open(roots, target);
  if (!folder.ok()) return;
  const std::string prefix = CheckpointPrefix(target, job);
  for (const std::string& name : folder->Names()) {
    if (name.rfind(prefix, 0) != 0) continue;
    // <attempt>.checkpoint-<layers>[.partial]
    const size_t middle = name.find(kCheckpoint, prefix.size());
    if (middle == std::string::npos) continue;
    const size_t layers = middle + sizeof(kCheckpoint) - 1;
    CheckpointName found;
    if (!absl::SimpleAtoi(name.substr(prefix.size(), middle - prefix.size()), &found.attempt) ||
        !absl::SimpleAtoi(name.substr(layers, name.find('.', layers) - layers), &found.layers)) {
      continue;
    }
    if (over(found)) folder->Unlink(name);
  }
}

bool SameFile(const OutputFolder& folder, const std::string& a, const std::string& b) {
  struct stat x, y;
  return folder.Stat(a, &x) && folder.Stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

// Gives `staging` the name `target`, which must be free. A hard link does it where the file system cannot
// refuse an existing target in a rename.
absl::Status RenameToFreeName(const OutputFolder& folder, const std::string& staging,
                              const std::string& target) {
  const int fd = folder.fd();
  if (renameat2(fd, staging.c_str(), fd, target.c_str(), RENAME_NOREPLACE) == 0) return absl::OkStatus();
  if (errno != EINVAL && errno != ENOSYS) {
    return StorageError(errno, absl::StrCat("rename to ", folder.Path(target)));
  }
  if (linkat(fd, staging.c_str(), fd, target.c_str(), 0) != 0) {
    return StorageError(errno, absl::StrCat("link to ", folder.Path(target)));
  }
  if (!folder.Unlink(staging)) return StorageError(errno, absl::StrCat("unlink of ", folder.Path(staging)));
  return absl::OkStatus();
}

// Gives `staging`, the file `inode`, the name `target`. Repeated after a crash, it does what is left to do.
absl::Status RenameToTarget(const OutputFolder& folder, const std::string& staging, const std::string& target,
                            bool overwrite, int64_t inode) {
  if (!folder.Has(staging)) {
    struct stat there;
    if (!folder.Stat(target, &there)) {
      return StorageError(ENOENT, absl::StrCat("staging file ", folder.Path(staging)));
    }
    if (inode == 0 || static_cast<int64_t>(there.st_ino) == inode)
      return absl::OkStatus();  // renamed already
    return StorageError(ENOENT, absl::StrCat("staging file ", folder.Path(staging), ", and ",
                                             folder.Path(target), " is another"));
  }
  if (SameFile(folder, staging, target)) {  // the crash came between link and unlink
    if (folder.Unlink(staging)) return absl::OkStatus();
    return StorageError(errno, absl::StrCat("unlink of ", folder.Path(staging)));
  }
  if (!overwrite) return RenameToFreeName(folder, staging, target);
  if (renameat(folder.fd(), staging.c_str(), folder.fd(), target.c_str()) == 0) return absl::OkStatus();
  return StorageError(errno, absl::StrCat("rename to ", folder.Path(target)));
}

// Takes the name of an output away again that it has got from its staging file, but not known to be on disk.
// Its attempt is over, and the next one is to find the name free.
void TakeBack(const OutputFolder& folder, const JobSpec& spec, const std::string& job, int attempt) {
  const std::string target = NameOf(spec.output_file);
  const std::string staging = NameOf(StagingPath(spec.output_file, job, attempt));
  if (renameat(folder.fd(), target.c_str(), folder.fd(), staging.c_str()) != 0) {
    LogError("an output that is not known to be on disk keeps its name",
             {{"error", std::strerror(errno)}, {"file", folder.Path(target)}});
  }
}

// fsync of the file `name`, past the failpoint `point`.
absl::Status SyncFile(const OutputFolder& folder, const std::string& name, int fd, const char* point,
                      const FailpointSubject& subject) {
  const HandOverFailpoint handed(point, subject);
  SEQPAR_RETURN_IF_ERROR(handed.error());
  if (fsync(fd) == 0) return absl::OkStatus();
  return StorageError(errno, absl::StrCat("sync of ", folder.Path(name)));
}

}  // namespace

std::string StagingPath(const std::string& target, const std::string& job, int attempt) {
  const size_t slash = target.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  return absl::StrCat(target.substr(0, name), ".", target.substr(name), ".seqpar-", job, "-", attempt,
                      ".partial");
}

absl::Status CheckInputs(const DataRoots& roots, const std::map<std::string, FileFingerprint>& inputs) {
  for (const auto& [path, expected] : inputs) {
    const absl::StatusOr<FileFingerprint> found = FingerprintFile(roots, path);
    if (found.ok() && *found == expected) continue;
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kInputChanged,
                     absl::StrCat(path, " is no longer what it was when the job was submitted",
                                  found.ok() ? std::string() : absl::StrCat(": ", found.status().message())));
  }
  return absl::OkStatus();
}

absl::Status PrepareStaging(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                            int attempt) {
  if (spec.output_file.empty()) return absl::OkStatus();
  // The file of an earlier process of the coordinator may have this attempt's name too: it was never used.
  UnlinkStaging(roots, spec, job, attempt);
  SEQPAR_ASSIGN_OR_RETURN(const OutputFolder folder, OutputFolder::Open(roots, spec.output_file));
  const std::string name = NameOf(StagingPath(spec.output_file, job, attempt));
  const UniqueFd fd = folder.OpenFile(name, O_RDWR | O_CREAT | O_EXCL, 0666);
  if (!fd.valid()) return StorageError(errno, absl::StrCat("staging file ", folder.Path(name)));
  SafetensorsHeader layout;
  const std::string header = BuildOutputHeader(spec, &layout);
  const int64_t bytes = layout.file_bytes;
  absl::Status status;
  if (const int error = posix_fallocate(fd.get(), 0, bytes); error != 0) {
    status = StorageError(error, absl::StrCat("staging file ", folder.Path(name), " of ",
                                              FormatBytes(static_cast<double>(bytes))));
  }
  if (status.ok()) status = PwriteAll(fd.get(), header.data(), static_cast<int64_t>(header.size()), 0);
  if (status.ok()) status = SyncFile(folder, name, fd.get(), "coordinator.place.fsync", {job, attempt});
  if (status.ok()) status = folder.Sync();
  if (!status.ok()) folder.Unlink(name);
  return status;
}

absl::StatusOr<int64_t> SyncStaging(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                                    int attempt) {
  if (spec.output_file.empty()) return 0;
  SEQPAR_ASSIGN_OR_RETURN(const OutputFolder folder, OutputFolder::Open(roots, spec.output_file));
  const std::string name = NameOf(StagingPath(spec.output_file, job, attempt));
  const UniqueFd fd = folder.OpenFile(name, O_RDWR);
  if (!fd.valid()) return StorageError(errno, absl::StrCat("sync of ", folder.Path(name)));
  SEQPAR_RETURN_IF_ERROR(SyncFile(folder, name, fd.get(), "coordinator.merge.fsync", {job, attempt}));
  struct stat info;
  if (fstat(fd.get(), &info) == 0) return static_cast<int64_t>(info.st_ino);
  return StorageError(errno, absl::StrCat("stat of ", folder.Path(name)));
}

absl::Status CommitStaging(const DataRoots& roots, const JobSpec& spec, const std::string& job, int attempt,
                           int64_t inode) {
  if (spec.output_file.empty()) return absl::OkStatus();
  SEQPAR_ASSIGN_OR_RETURN(const OutputFolder folder, OutputFolder::Open(roots, spec.output_file));
  {
    const HandOverFailpoint point("coordinator.commit.rename", {job, attempt});
    SEQPAR_RETURN_IF_ERROR(point.error());
    SEQPAR_RETURN_IF_ERROR(RenameToTarget(folder, NameOf(StagingPath(spec.output_file, job, attempt)),
                                          NameOf(spec.output_file), spec.overwrite, inode));
  }
  const HandOverFailpoint point("coordinator.commit.fsync", {job, attempt});
  absl::Status synced = point.error().ok() ? folder.Sync() : point.error();
  if (!synced.ok() && !spec.overwrite) TakeBack(folder, spec, job, attempt);
  return synced;
}

void UnlinkStaging(const DataRoots& roots, const JobSpec& spec, const std::string& job, int attempt) {
  if (spec.output_file.empty()) return;
  const absl::StatusOr<OutputFolder> folder = OutputFolder::Open(roots, spec.output_file);
  if (!folder.ok()) return;  // with its folder the files are gone too
  for (int i = 1; i <= attempt; ++i) folder->Unlink(NameOf(StagingPath(spec.output_file, job, i)));
}

std::string CheckpointBase(const std::string& target, const std::string& job, int attempt) {
  const std::string folder = target.substr(0, target.size() - NameOf(target).size());
  return absl::StrCat(folder, CheckpointPrefix(target, job), attempt, kCheckpoint);
}

std::string CheckpointPath(const std::string& target, const std::string& job, const CheckpointName& name) {
  return absl::StrCat(CheckpointBase(target, job, name.attempt), name.layers);
}

absl::Status KeepCheckpoint(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                            const CheckpointName& name) {
  SEQPAR_ASSIGN_OR_RETURN(const OutputFolder folder, OutputFolder::Open(roots, spec.output_file));
  const std::string whole = NameOf(CheckpointPath(spec.output_file, job, name));
  const std::string partial = whole + ".partial";
  const HandOverFailpoint point("coordinator.checkpoint.rename", {job, name.attempt});
  SEQPAR_RETURN_IF_ERROR(point.error());
  if (renameat(folder.fd(), partial.c_str(), folder.fd(), whole.c_str()) != 0 &&
      !(errno == ENOENT && folder.Has(whole))) {
    return StorageError(errno, absl::StrCat("rename to ", folder.Path(whole)));
  }
  return folder.Sync();
}

bool HasCheckpoint(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                   const CheckpointName& name) {
  const absl::StatusOr<OutputFolder> folder = OutputFolder::Open(roots, spec.output_file);
  SafetensorsHeader layout;
  BuildCheckpointHeader(spec, &layout);
  struct stat info;
  return folder.ok() && folder->Stat(NameOf(CheckpointPath(spec.output_file, job, name)), &info) &&
         S_ISREG(info.st_mode) && info.st_size == layout.file_bytes;
}

void DropEarlierCheckpoints(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                            const CheckpointName& kept) {
  UnlinkWhere(roots, spec.output_file, job, [&kept](const CheckpointName& name) {
    return name.attempt < kept.attempt || (name.attempt == kept.attempt && name.layers < kept.layers);
  });
}

void UnlinkCheckpoints(const DataRoots& roots, const JobSpec& spec, const std::string& job, int attempt,
                       const CheckpointName& keep) {
  if (spec.output_file.empty()) return;
  UnlinkWhere(roots, spec.output_file, job, [attempt, &keep](const CheckpointName& name) {
    const bool kept = name.attempt == keep.attempt && name.layers == keep.layers;
    return name.attempt <= attempt && !kept;
  });
}

}  // namespace seqpar
