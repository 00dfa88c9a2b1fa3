#include "coordinator/store/store_folder.h"

#include <fcntl.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/base/lock_file.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr char kReserve[] = "reserve";

absl::Status Refuse(const std::string& message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason::kStorage,
                   absl::StrCat("job store: ", message));
}

}  // namespace

const char* NetworkFileSystem(int64_t type) {
  // linux/magic.h and the file systems' own headers. f_type is signed in places: compared as 32 bits.
  switch (static_cast<uint32_t>(type)) {
    case 0x6969:
      return "NFS";
    case 0x517b:
    case 0xff534d42:
    case 0xfe534d42:
      return "SMB";
    case 0x00c36400:
      return "Ceph";
    case 0x5346414f:
    case 0x6b414653:
      return "AFS";
    case 0x0bd00bd0:
      return "Lustre";
    case 0x47504653:
      return "GPFS";
    case 0x73757245:
      return "Coda";
    case 0x19830326:
      return "BeeGFS";
    case 0x7461636f:
      return "OCFS2";
    case 0x01161970:
      return "GFS2";
    default:
      return nullptr;
  }
}

absl::StatusOr<StoreFolder> StoreFolder::Lock(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return Refuse(absl::StrCat("cannot create ", folder, ": ", error.message()));
  struct statfs info = {};
  if (statfs(folder.c_str(), &info) != 0) {
    return Refuse(absl::StrCat("cannot look at ", folder, ": ", std::strerror(errno)));
  }
  if (const char* name = NetworkFileSystem(static_cast<int64_t>(info.f_type)); name != nullptr) {
    return Refuse(
        absl::StrCat(folder, " is on a network file system (", name,
                     "), where its locks and its log do not hold: it needs a disk of this machine"));
  }
  const std::string path = folder + "/lock";
  std::string holder;
  absl::StatusOr<UniqueFd> lock = TakeLockFile(path, &holder);
  if (!lock.ok()) return Refuse(std::string(lock.status().message()));
  if (!lock->valid()) {
    return Refuse(absl::StrCat("another coordinator has ", folder, "/jobs.sqlite open: ", holder));
  }
  const auto disk_bytes = static_cast<int64_t>(info.f_blocks) * static_cast<int64_t>(info.f_bsize);
  return StoreFolder(folder, *std::move(lock), disk_bytes);
}

absl::Status StoreFolder::KeepReserve(int64_t bytes) {
  if (has_reserve_) return absl::OkStatus();
  const std::string path = Path(kReserve);
  const UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  const int error = fd.valid() ? posix_fallocate(fd.get(), 0, bytes) : errno;
  if (error == 0) {
    has_reserve_ = true;
    return absl::OkStatus();
  }
  unlink(path.c_str());
  return MakeError(absl::StatusCode::kResourceExhausted, reason::kStorage,
                   absl::StrCat("job store: no room for a reserve of ", bytes, " bytes in ", folder_, ": ",
                                std::strerror(error)));
}

void StoreFolder::GiveUpReserve() {
  unlink(Path(kReserve).c_str());
  has_reserve_ = false;
}

absl::Status SyncStoreFolder(const std::string& folder) {
  const UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid() && fsync(fd.get()) == 0) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInternal, reason::kStorage,
                   absl::StrCat("job store: sync of ", folder, ": ", std::strerror(errno)));
}

}  // namespace seqpar
