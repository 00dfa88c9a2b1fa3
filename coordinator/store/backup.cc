#include "coordinator/store/backup.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "coordinator/store/schema.h"
#include "coordinator/store/sqlite.h"
#include "coordinator/store/store.h"
#include "coordinator/store/store_folder.h"

namespace seqpar {
namespace {

constexpr int kPagesAtOnce = 256;  // 1 MiB: what a write of the store may have to wait for

using Database = std::unique_ptr<sqlite3, decltype(&sqlite3_close_v2)>;

absl::StatusOr<Database> OpenDatabase(const std::string& path, int flags) {
  sqlite3* db = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &db, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  Database owned(db, &sqlite3_close_v2);
  if (opened != SQLITE_OK) return SqliteError(db, path);
  return owned;
}

absl::Status Refuse(absl::StatusCode code, const std::string& message) {
  return MakeError(code, reason::kStorage, absl::StrCat("job store: ", message));
}

// `partial` takes the name `path`, which is free.
absl::Status TakeName(const std::string& partial, const std::string& path) {
  if (renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
    return Refuse(errno == EEXIST ? absl::StatusCode::kAlreadyExists : absl::StatusCode::kInternal,
                  absl::StrCat("rename to ", path, ": ", std::strerror(errno)));
  }
  return SyncStoreFolder(std::filesystem::path(path).parent_path().string());
}

}  // namespace

absl::Status CopyDatabase(sqlite3* db, const std::string& path,
                          const std::function<absl::Status(const std::function<absl::Status()>&)>& guarded) {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    return Refuse(absl::StatusCode::kAlreadyExists, absl::StrCat(path, " exists"));
  }
  const std::string partial = path + ".partial";
  unlink(partial.c_str());
  const auto copy = [&]() -> absl::Status {
    SEQPAR_ASSIGN_OR_RETURN(const Database to,
                            OpenDatabase(partial, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
    sqlite3_backup* backup = nullptr;
    SEQPAR_RETURN_IF_ERROR(guarded([&]() -> absl::Status {
      backup = sqlite3_backup_init(to.get(), "main", db, "main");
      return backup == nullptr ? SqliteError(to.get(), partial) : absl::OkStatus();
    }));
    int result = SQLITE_OK;
    while (result == SQLITE_OK) {
      guarded([&] {
        result = sqlite3_backup_step(backup, kPagesAtOnce);
        return absl::OkStatus();
      }).IgnoreError();
    }
    guarded([&] {
      sqlite3_backup_finish(backup);
      return absl::OkStatus();
    }).IgnoreError();
    if (result != SQLITE_DONE) return SqliteError(to.get(), partial);
    // A file of its own, without a log beside it: closing brings everything into it, and the last step of the
    // copy was a transaction that was synced.
    return Execute(to.get(), "PRAGMA journal_mode = DELETE");
  };
  absl::Status status = copy();
  if (status.ok()) status = TakeName(partial, path);
  if (!status.ok()) unlink(partial.c_str());
  return status;
}

absl::Status Store::Restore(const std::string& backup, const std::string& folder) {
  SEQPAR_ASSIGN_OR_RETURN(const StoreFolder held, StoreFolder::Lock(folder));
  const std::string path = held.Path("jobs.sqlite");
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    return Refuse(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat(path, " exists: move it, and what is beside it with -wal or -shm added, away first"));
  }
  const std::string partial = path + ".restored";
  unlink(partial.c_str());
  {
    SEQPAR_ASSIGN_OR_RETURN(const Database from, OpenDatabase(backup, SQLITE_OPEN_READONLY));
    SEQPAR_RETURN_IF_ERROR(Annotate(CheckSchema(from.get()), backup));
    SEQPAR_RETURN_IF_ERROR(
        CopyDatabase(from.get(), partial, [](const std::function<absl::Status()>& step) { return step(); }));
  }
  {
    SEQPAR_ASSIGN_OR_RETURN(const Database to, OpenDatabase(partial, SQLITE_OPEN_READWRITE));
    SEQPAR_RETURN_IF_ERROR(
        Execute(to.get(), "INSERT OR REPLACE INTO settings (name, value) VALUES ('restored', 'yes')"));
  }
  return TakeName(partial, path);
}

}  // namespace seqpar
