// The folder that a store lives in: one coordinator at a time, on a disk of this machine, with something kept
// back for the day when the disk is full.
#ifndef SEQPAR_COORDINATOR_STORE_STORE_FOLDER_H_
#define SEQPAR_COORDINATOR_STORE_STORE_FOLDER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/fd.h"

namespace seqpar {

// The name of the network file system with this number (statfs(2), f_type): "NFS", ...; null for one that is
// none. SQLite's locks and its memory of the log do not hold over a network. What passes through the kernel
// as 9P or FUSE may be a disk of this machine: not named.
const char* NetworkFileSystem(int64_t type);

// Held until it is destroyed. One thread at a time.
class StoreFolder {
 public:
  // Creates the folder where it does not exist and locks it. FAILED_PRECONDITION where another process has it
  // (named by its pid, as it sees itself, and its host), where it cannot be made, or lies on a network file
  // system.
  static absl::StatusOr<StoreFolder> Lock(const std::string& folder);

  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  // Of the file system that it is on, as it was then, whether free or not.
  int64_t disk_bytes() const { return disk_bytes_; }

  // Allocates `bytes` on disk and keeps them. RESOURCE_EXHAUSTED where there is no room for them.
  absl::Status KeepReserve(int64_t bytes);
  // Gives them up: that much can be written now.
  void GiveUpReserve();
  bool has_reserve() const { return has_reserve_; }

 private:
  StoreFolder(std::string folder, UniqueFd lock, int64_t disk_bytes)
      : folder_(std::move(folder)), disk_bytes_(disk_bytes), lock_(std::move(lock)) {}

  std::string folder_;
  int64_t disk_bytes_;
  UniqueFd lock_;
  bool has_reserve_ = false;
};

// Makes what was created, renamed or removed in `folder` durable.
absl::Status SyncStoreFolder(const std::string& folder);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_STORE_FOLDER_H_
