// A VFS (sqlite.org/vfs.html) that is the system's own but for two methods of its files: each open file gets
// a table of methods in which xWrite and xSync are ours, with the table that it had beside.
#include "coordinator/store/faulty_disk.h"

#include <sqlite3.h>

#include <map>

#include "common/base/failpoints.h"
#include "common/base/mutex.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr char kName[] = "seqpar-faulty";

struct FaultyMethods {
  sqlite3_io_methods methods;  // first: a file points at it
  const sqlite3_io_methods* original;
};

const sqlite3_io_methods* OriginalOf(const sqlite3_file* file) {
  return reinterpret_cast<const FaultyMethods*>(file->pMethods)->original;
}

int Write(sqlite3_file* file, const void* data, int bytes, sqlite3_int64 offset) {
  if (!Failpoint("coordinator.store.write").ok()) return SQLITE_IOERR_WRITE;
  return OriginalOf(file)->xWrite(file, data, bytes, offset);
}

int Sync(sqlite3_file* file, int flags) {
  const HandOverFailpoint point("coordinator.store.fsync");
  if (!point.error().ok()) return SQLITE_IOERR_FSYNC;
  return OriginalOf(file)->xSync(file, flags);
}

// The system has a handful of tables, one a way of locking; so have we. They live as long as the process.
const sqlite3_io_methods* FaultyMethodsOf(const sqlite3_io_methods* original) {
  static auto* const mutex = new Mutex;
  static auto* const tables = new std::map<const sqlite3_io_methods*, FaultyMethods>;
  MutexLock lock(*mutex);
  FaultyMethods& faulty = (*tables)[original];
  if (faulty.original == nullptr) {
    faulty.methods = *original;
    faulty.methods.xWrite = Write;
    faulty.methods.xSync = Sync;
    faulty.original = original;
  }
  return &faulty.methods;
}

int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  auto* const system = static_cast<sqlite3_vfs*>(vfs->pAppData);
  const int opened = system->xOpen(system, name, file, flags, out_flags);
  if (file->pMethods != nullptr) file->pMethods = FaultyMethodsOf(file->pMethods);
  return opened;
}

}  // namespace

absl::Status PutFaultyDiskUnderSqlite() {
  if (sqlite3_vfs_find(kName) != nullptr) return absl::OkStatus();
  sqlite3_vfs* const system = sqlite3_vfs_find(nullptr);
  if (system != nullptr) {
    static sqlite3_vfs faulty = *system;
    faulty.zName = kName;
    faulty.pNext = nullptr;
    faulty.pAppData = system;
    faulty.xOpen = Open;
    if (sqlite3_vfs_register(&faulty, /*makeDflt=*/1) == SQLITE_OK) return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kInternal, reason::kStorage, "job store: SQLite takes no other disk");
}

}  // namespace seqpar
