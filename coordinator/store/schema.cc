#include "coordinator/store/schema.h"

#include <unistd.h>

#include <functional>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/sqlite.h"

namespace seqpar {
namespace {

// Each brings a store from the version of its index to the next one; none is ever changed once released. A
// new store takes them all.
constexpr const char* kMigrations[] = {R"sql(
CREATE TABLE jobs (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  request_id TEXT NOT NULL UNIQUE,
  request BLOB NOT NULL,
  state INTEGER NOT NULL,
  live INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  create_us INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  body BLOB NOT NULL,
  report BLOB NOT NULL);
CREATE INDEX live_jobs ON jobs (sequence) WHERE live = 1;
CREATE TABLE attempts (job TEXT NOT NULL, attempt INTEGER NOT NULL, plan BLOB NOT NULL, PRIMARY KEY (job, attempt))
  WITHOUT ROWID;
CREATE TABLE blobs (job TEXT NOT NULL, attempt INTEGER NOT NULL, grp TEXT NOT NULL, rank INTEGER NOT NULL,
  data BLOB NOT NULL, PRIMARY KEY (job, attempt, grp, rank)) WITHOUT ROWID;
CREATE TABLE results (job TEXT NOT NULL, attempt INTEGER NOT NULL, rank INTEGER NOT NULL, event BLOB NOT NULL,
  PRIMARY KEY (job, attempt, rank)) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
)sql",
                                       R"sql(
CREATE TABLE drains (node TEXT PRIMARY KEY) WITHOUT ROWID;
)sql",
                                       R"sql(
ALTER TABLE jobs ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_of_tenant ON jobs (tenant, sequence);
)sql",
                                       R"sql(
CREATE TABLE traces (job TEXT NOT NULL, attempt INTEGER NOT NULL, rank INTEGER NOT NULL, number INTEGER NOT NULL,
  chunk BLOB NOT NULL, PRIMARY KEY (job, attempt, rank, number));
)sql",
                                       R"sql(
ALTER TABLE jobs ADD COLUMN end_us INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET end_us = create_us WHERE live = 0;
CREATE INDEX ended_jobs ON jobs (end_us) WHERE live = 0;
)sql"};
constexpr int kSchemaVersion = std::size(kMigrations);

absl::StatusOr<int64_t> SchemaVersion(sqlite3* db) {
  Statement read(db, "PRAGMA user_version");
  SEQPAR_ASSIGN_OR_RETURN(const bool row, read.Next());
  return row ? read.Int(0) : 0;
}

// The program that wrote a store last; "" where it does not say.
std::string Writer(sqlite3* db) {
  Statement read(db, "SELECT value FROM settings WHERE name = 'program'");
  const absl::StatusOr<bool> row = read.Next();
  return row.ok() && *row ? read.Bytes(0) : std::string();
}

absl::Status CheckPages(sqlite3* db) {
  Statement check(db, "PRAGMA quick_check(1)");
  SEQPAR_ASSIGN_OR_RETURN(const bool row, check.Next());
  if (row && check.Bytes(0) == "ok") return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInternal, reason::kStorage,
      absl::StrCat("job store: the file is damaged: ", row ? check.Bytes(0) : "quick_check said nothing",
                   "; seqpar-coordinator --restore takes a backup"));
}

}  // namespace

absl::Status CheckSchema(sqlite3* db) {
  SEQPAR_RETURN_IF_ERROR(CheckPages(db));
  SEQPAR_ASSIGN_OR_RETURN(const int64_t version, SchemaVersion(db));
  if (version <= kSchemaVersion) return absl::OkStatus();
  const std::string writer = Writer(db);
  return MakeError(
      absl::StatusCode::kFailedPrecondition, reason::kStorage,
      absl::StrCat("job store: written by a newer version (schema ", version,
                   writer.empty() ? std::string() : absl::StrCat(", seqpar-coordinator ", writer),
                   "; this one, ", kVersion, ", knows ", kSchemaVersion, ")"));
}

absl::Status MigrateSchema(sqlite3* db, const std::string& copy_prefix) {
  SEQPAR_RETURN_IF_ERROR(CheckSchema(db));
  SEQPAR_ASSIGN_OR_RETURN(int64_t version, SchemaVersion(db));
  if (version > 0 && version < kSchemaVersion) {
    const std::string copy = absl::StrCat(copy_prefix, version);
    unlink(copy.c_str());  // of an earlier start that did not get further
    SEQPAR_RETURN_IF_ERROR(
        CopyDatabase(db, copy, [](const std::function<absl::Status()>& step) { return step(); }));
    LogInfo("job store of an earlier version: copied before it is changed",
            {{"schema", version}, {"copy", copy}, {"to_schema", kSchemaVersion}});
  }
  return InTransaction(db, [&]() -> absl::Status {
    for (; version < kSchemaVersion; ++version) SEQPAR_RETURN_IF_ERROR(Execute(db, kMigrations[version]));
    SEQPAR_RETURN_IF_ERROR(Failpoint("coordinator.start.migrate"));
    Statement program(db, "INSERT OR REPLACE INTO settings (name, value) VALUES ('program', ?)");
    SEQPAR_RETURN_IF_ERROR(program.BindText(kVersion).Run());
    return Execute(db, absl::StrCat("PRAGMA user_version = ", kSchemaVersion).c_str());
  });
}

}  // namespace seqpar
