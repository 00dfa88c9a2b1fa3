// The few verbs of SQLite that the store needs, with errors as Status. Only coordinator/store includes this.
#ifndef SEQPAR_COORDINATOR_STORE_SQLITE_H_
#define SEQPAR_COORDINATOR_STORE_SQLITE_H_

#include <sqlite3.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar {

// The last error of `db` as a Status with reason STORAGE.
absl::Status SqliteError(sqlite3* db, const std::string& what);

absl::Status Execute(sqlite3* db, const char* sql);

// From now on what goes wrong in a checkpoint is an error of the commit that it is made by, which stands.
// SQLite by itself checkpoints at the same times, keeps a failed write or fsync to itself, and tries again at
// the next commit. No room in the file is no error: what was committed is in the log, and stays there until
// there is.
void TellOfFailedCheckpoints(sqlite3* db);

// `body` in one transaction: all of it or nothing.
template <typename Body>
absl::Status InTransaction(sqlite3* db, Body body) {
  absl::Status status = Execute(db, "BEGIN IMMEDIATE");
  if (!status.ok()) return status;
  status = body();
  if (status.ok()) status = Execute(db, "COMMIT");
  if (!status.ok() && sqlite3_get_autocommit(db) == 0) Execute(db, "ROLLBACK").IgnoreError();
  return status;
}

// A prepared statement. Parameters are bound in order by Bind, columns read in order by the getters.
class Statement {
 public:
  Statement(sqlite3* db, const std::string& sql);
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& Bind(int64_t value);
  Statement& BindText(const std::string& value);
  Statement& BindBlob(const std::string& value);

  // True: a row is there; false: no more.
  absl::StatusOr<bool> Next();
  // Runs a statement that yields no rows, and readies it for other parameters.
  absl::Status Run();

  int64_t Int(int column) const { return sqlite3_column_int64(statement_, column); }
  std::string Bytes(int column) const;

 private:
  sqlite3* const db_;
  sqlite3_stmt* statement_ = nullptr;
  int error_ = SQLITE_OK;
  int bound_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_SQLITE_H_
