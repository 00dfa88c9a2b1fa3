#include "coordinator/store/sqlite.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar {

absl::Status SqliteError(sqlite3* db, const std::string& what) {
  const int code = sqlite3_errcode(db) & 0xff;
  const auto status_code = code == SQLITE_FULL ? absl::StatusCode::kResourceExhausted
                                               : (code == SQLITE_CONSTRAINT ? absl::StatusCode::kAlreadyExists
                                                                            : absl::StatusCode::kInternal);
  return MakeError(status_code, reason::kStorage,
                   absl::StrCat("job store: ", what, ": ", sqlite3_errmsg(db)));
}

absl::Status Execute(sqlite3* db, const char* sql) {
  if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return SqliteError(db, sql);
  return absl::OkStatus();
}

void TellOfFailedCheckpoints(sqlite3* db) {
  constexpr int kFrames = 1000;  // SQLite's own default
  const auto checkpoint = [](void*, sqlite3* written, const char* name, int frames) {
    if (frames < kFrames) return SQLITE_OK;
    const int result = sqlite3_wal_checkpoint_v2(written, name, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
    const int code = result & 0xff;
    return code == SQLITE_FULL || code == SQLITE_BUSY || code == SQLITE_LOCKED ? SQLITE_OK : result;
  };
  sqlite3_wal_hook(db, checkpoint, nullptr);
}

Statement::Statement(sqlite3* db, const std::string& sql) : db_(db) {
  error_ = sqlite3_prepare_v2(db, sql.c_str(), static_cast<int>(sql.size()), &statement_, nullptr);
}

Statement& Statement::Bind(int64_t value) {
  if (error_ == SQLITE_OK) error_ = sqlite3_bind_int64(statement_, ++bound_, value);
  return *this;
}

Statement& Statement::BindText(const std::string& value) {
  if (error_ == SQLITE_OK) {
    error_ =
        sqlite3_bind_text64(statement_, ++bound_, value.data(), value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  return *this;
}

Statement& Statement::BindBlob(const std::string& value) {
  if (error_ == SQLITE_OK) {
    error_ = sqlite3_bind_blob64(statement_, ++bound_, value.data(), value.size(), SQLITE_TRANSIENT);
  }
  return *this;
}

absl::StatusOr<bool> Statement::Next() {
  if (error_ != SQLITE_OK) return SqliteError(db_, "prepare");
  const int result = sqlite3_step(statement_);
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  return SqliteError(db_, "step");
}

absl::Status Statement::Run() {
  const absl::StatusOr<bool> row = Next();
  if (statement_ != nullptr) {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  bound_ = 0;
  return row.status();
}

std::string Statement::Bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return size == 0 ? std::string() : std::string(static_cast<const char*>(data), size);
}

}  // namespace seqpar
