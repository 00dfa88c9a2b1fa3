// Store over SQLite: write-ahead log with synchronous=FULL, so that a commit is an fsync, and an exclusive
// lock, so that a second coordinator on the same file is refused.
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "coordinator/store/sqlite.h"
#include "coordinator/store/store.h"

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
)sql"};
constexpr int kSchemaVersion = std::size(kMigrations);

constexpr char kColumns[] =
    "sequence, id, request_id, request, state, live, priority, create_us, revision, body, tenant";

JobRow ReadRow(const Statement& statement) {
  JobRow row;
  row.sequence = statement.Int(0);
  row.id = statement.Bytes(1);
  row.request_id = statement.Bytes(2);
  row.request = statement.Bytes(3);
  row.state = static_cast<int>(statement.Int(4));
  row.live = statement.Int(5) != 0;
  row.priority = static_cast<int>(statement.Int(6));
  row.create_us = statement.Int(7);
  row.revision = statement.Int(8);
  row.body = statement.Bytes(9);
  row.tenant = statement.Bytes(10);
  return row;
}

class SqliteStore : public Store {
 public:
  SqliteStore(sqlite3* db, const StoreLimits& limits) : limits_(limits), db_(db) {}
  ~SqliteStore() override { sqlite3_close_v2(db_); }

  absl::Status Prepare();

  int64_t term() const override { return term_; }
  absl::Status Insert(JobRow* row) override;
  absl::Status Write(const WriteBatch& batch) override;
  absl::StatusOr<std::optional<JobRow>> FindByRequestId(const std::string& request_id) override {
    return FindOne("request_id", request_id);
  }
  absl::StatusOr<std::optional<JobRow>> Get(const std::string& id) override { return FindOne("id", id); }
  absl::StatusOr<std::vector<JobRow>> List(int64_t before, int limit, const std::vector<int>& states,
                                           const std::optional<std::string>& tenant) override;
  absl::StatusOr<std::vector<JobRow>> LoadLive() override;
  absl::StatusOr<StoredAttempt> LoadAttempt(const std::string& job, int attempt) override;
  absl::StatusOr<std::vector<TraceRow>> LoadTraces(const std::string& job, int attempt, int rank,
                                                   int64_t number, int64_t bytes) override;
  absl::StatusOr<std::vector<std::string>> LoadDrains() override;
  absl::StatusOr<std::string> Setting(const std::string& name) override;

 private:
  absl::StatusOr<std::optional<JobRow>> FindOne(const char* column, const std::string& value);
  absl::Status WriteRows(const WriteBatch& batch);
  // Keeps *bytes, those of all traces, up to date.
  absl::Status WriteTraces(const std::vector<TraceRow>& traces, int64_t* bytes);
  absl::Status ForgetOldTraces(int64_t* bytes);
  // `body` in one transaction: all of it or nothing.
  template <typename Body>
  absl::Status Transaction(Body body) {
    SEQPAR_RETURN_IF_ERROR(Execute(db_, "BEGIN IMMEDIATE"));
    absl::Status status = body();
    if (status.ok()) status = Execute(db_, "COMMIT");
    if (!status.ok() && sqlite3_get_autocommit(db_) == 0) Execute(db_, "ROLLBACK").IgnoreError();
    return status;
  }

  const StoreLimits limits_;
  Mutex mutex_;
  sqlite3* const db_ ABSL_PT_GUARDED_BY(mutex_);
  int64_t term_ = 0;
  int64_t trace_bytes_ = 0;  // under mutex_ once it is prepared
};

absl::Status SqliteStore::Prepare() {
  for (const char* pragma :
       {"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"}) {
    SEQPAR_RETURN_IF_ERROR(Execute(db_, pragma));
  }
  return Transaction([this]() -> absl::Status {
    int64_t version = 0;
    {
      Statement read(db_, "PRAGMA user_version");
      SEQPAR_ASSIGN_OR_RETURN(const bool row, read.Next());
      if (row) version = read.Int(0);
    }
    if (version > kSchemaVersion) {
      return MakeError(absl::StatusCode::kFailedPrecondition, reason::kStorage,
                       absl::StrCat("job store: written by a newer version (schema ", version,
                                    ", this one knows ", kSchemaVersion, ")"));
    }
    for (; version < kSchemaVersion; ++version) SEQPAR_RETURN_IF_ERROR(Execute(db_, kMigrations[version]));
    SEQPAR_RETURN_IF_ERROR(Execute(db_, absl::StrCat("PRAGMA user_version = ", kSchemaVersion).c_str()));
    Statement traces(db_, "SELECT COALESCE(SUM(LENGTH(chunk)), 0) FROM traces");
    SEQPAR_ASSIGN_OR_RETURN(const bool sum, traces.Next());
    if (sum) trace_bytes_ = traces.Int(0);
    Statement read(db_, "SELECT value FROM settings WHERE name = 'term'");
    SEQPAR_ASSIGN_OR_RETURN(const bool row, read.Next());
    term_ = (row ? read.Int(0) : 0) + 1;
    Statement write(db_, "INSERT OR REPLACE INTO settings (name, value) VALUES ('term', ?)");
    return write.Bind(term_).Run();
  });
}

absl::Status SqliteStore::Insert(JobRow* row) {
  MutexLock lock(mutex_);
  return Transaction([&]() -> absl::Status {
    Statement insert(
        db_,
        "INSERT INTO jobs (id, request_id, request, state, live, priority, create_us, revision, body, "
        "report, tenant) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    insert.BindText(row->id)
        .BindText(row->request_id)
        .BindBlob(row->request)
        .Bind(row->state)
        .Bind(row->live);
    insert.Bind(row->priority)
        .Bind(row->create_us)
        .Bind(row->revision)
        .BindBlob(row->body)
        .BindBlob(row->report)
        .BindText(row->tenant);
    SEQPAR_RETURN_IF_ERROR(insert.Run());
    row->sequence = sqlite3_last_insert_rowid(db_);
    return absl::OkStatus();
  });
}

absl::Status SqliteStore::Write(const WriteBatch& batch) {
  if (batch.empty()) return absl::OkStatus();
  MutexLock lock(mutex_);
  int64_t trace_bytes = trace_bytes_;
  SEQPAR_RETURN_IF_ERROR(Transaction([&]() -> absl::Status {
    SEQPAR_RETURN_IF_ERROR(WriteRows(batch));
    return WriteTraces(batch.traces, &trace_bytes);
  }));
  trace_bytes_ = trace_bytes;
  return absl::OkStatus();
}

absl::Status SqliteStore::WriteTraces(const std::vector<TraceRow>& traces, int64_t* bytes) {
  if (traces.empty()) return absl::OkStatus();
  Statement insert(db_,
                   "INSERT OR IGNORE INTO traces (job, attempt, rank, number, chunk) VALUES (?, ?, ?, ?, ?)");
  for (const TraceRow& row : traces) {
    insert.BindText(row.job).Bind(row.attempt).Bind(row.rank).Bind(row.number).BindBlob(row.chunk);
    SEQPAR_RETURN_IF_ERROR(insert.Run());
    if (sqlite3_changes(db_) > 0) *bytes += static_cast<int64_t>(row.chunk.size());
  }
  return ForgetOldTraces(bytes);
}

absl::Status SqliteStore::ForgetOldTraces(int64_t* bytes) {
  while (*bytes > limits_.trace_bytes) {
    // The oldest job that has any, unless it is the only one: what one job may have is bounded by its ranks.
    Statement oldest(db_,
                     "SELECT id FROM jobs WHERE EXISTS (SELECT 1 FROM traces WHERE traces.job = jobs.id) "
                     "ORDER BY sequence LIMIT 2");
    std::vector<std::string> jobs;
    while (true) {
      SEQPAR_ASSIGN_OR_RETURN(const bool row, oldest.Next());
      if (!row) break;
      jobs.push_back(oldest.Bytes(0));
    }
    if (jobs.size() < 2) return absl::OkStatus();
    Statement size(db_, "SELECT COALESCE(SUM(LENGTH(chunk)), 0) FROM traces WHERE job = ?");
    size.BindText(jobs[0]);
    SEQPAR_ASSIGN_OR_RETURN(const bool row, size.Next());
    if (row) *bytes -= size.Int(0);
    Statement forget(db_, "DELETE FROM traces WHERE job = ?");
    SEQPAR_RETURN_IF_ERROR(forget.BindText(jobs[0]).Run());
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::WriteRows(const WriteBatch& batch) {
  Statement job(db_, "UPDATE jobs SET state = ?, live = ?, revision = ?, body = ?, report = ? WHERE id = ?");
  for (const JobRow& row : batch.jobs) {
    job.Bind(row.state)
        .Bind(row.live)
        .Bind(row.revision)
        .BindBlob(row.body)
        .BindBlob(row.report)
        .BindText(row.id);
    SEQPAR_RETURN_IF_ERROR(job.Run());
  }
  Statement attempt(db_, "INSERT OR REPLACE INTO attempts (job, attempt, plan) VALUES (?, ?, ?)");
  for (const AttemptRow& row : batch.attempts) {
    SEQPAR_RETURN_IF_ERROR(attempt.BindText(row.job).Bind(row.attempt).BindBlob(row.plan).Run());
  }
  Statement blob(db_, "INSERT OR REPLACE INTO blobs (job, attempt, grp, rank, data) VALUES (?, ?, ?, ?, ?)");
  for (const BlobRow& row : batch.blobs) {
    blob.BindText(row.job).Bind(row.attempt).BindText(row.group).Bind(row.rank).BindBlob(row.data);
    SEQPAR_RETURN_IF_ERROR(blob.Run());
  }
  Statement result(db_, "INSERT OR REPLACE INTO results (job, attempt, rank, event) VALUES (?, ?, ?, ?)");
  for (const ResultRow& row : batch.results) {
    SEQPAR_RETURN_IF_ERROR(
        result.BindText(row.job).Bind(row.attempt).Bind(row.rank).BindBlob(row.event).Run());
  }
  Statement setting(db_, "INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)");
  for (const auto& [name, value] : batch.settings) {
    SEQPAR_RETURN_IF_ERROR(setting.BindText(name).BindBlob(value).Run());
  }
  for (const auto& [node, drained] : batch.drains) {
    Statement drain(db_, drained ? "INSERT OR REPLACE INTO drains (node) VALUES (?)"
                                 : "DELETE FROM drains WHERE node = ?");
    SEQPAR_RETURN_IF_ERROR(drain.BindText(node).Run());
  }
  Statement clean(db_, "UPDATE jobs SET live = 0 WHERE id = ?");
  for (const std::string& id : batch.cleaned) SEQPAR_RETURN_IF_ERROR(clean.BindText(id).Run());
  // A job that has ended is not taken up again.
  std::vector<std::string> over = batch.cleaned;
  for (const JobRow& row : batch.jobs) {
    if (!row.live) over.push_back(row.id);
  }
  for (const char* table : {"attempts", "blobs", "results"}) {
    Statement forget(db_, absl::StrCat("DELETE FROM ", table, " WHERE job = ?"));
    for (const std::string& id : over) SEQPAR_RETURN_IF_ERROR(forget.BindText(id).Run());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<JobRow>> SqliteStore::FindOne(const char* column, const std::string& value) {
  MutexLock lock(mutex_);
  Statement select(db_, absl::StrCat("SELECT ", kColumns, ", report FROM jobs WHERE ", column, " = ?"));
  select.BindText(value);
  SEQPAR_ASSIGN_OR_RETURN(const bool found, select.Next());
  if (!found) return std::optional<JobRow>();
  JobRow row = ReadRow(select);
  row.report = select.Bytes(11);
  return std::optional<JobRow>(std::move(row));
}

absl::StatusOr<std::vector<JobRow>> SqliteStore::List(int64_t before, int limit,
                                                      const std::vector<int>& states,
                                                      const std::optional<std::string>& tenant) {
  std::string filter;
  for (const int state : states) absl::StrAppend(&filter, filter.empty() ? " AND state IN (" : ", ", state);
  if (!filter.empty()) filter += ")";
  if (tenant) filter += " AND tenant = ?";
  MutexLock lock(mutex_);
  Statement select(db_, absl::StrCat("SELECT ", kColumns, " FROM jobs WHERE sequence < ?", filter,
                                     " ORDER BY sequence DESC LIMIT ?"));
  select.Bind(before);
  if (tenant) select.BindText(*tenant);
  select.Bind(limit);
  std::vector<JobRow> rows;
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(const bool row, select.Next());
    if (!row) return rows;
    rows.push_back(ReadRow(select));
  }
}

absl::StatusOr<std::vector<JobRow>> SqliteStore::LoadLive() {
  MutexLock lock(mutex_);
  Statement select(db_, absl::StrCat("SELECT ", kColumns, " FROM jobs WHERE live = 1 ORDER BY sequence"));
  std::vector<JobRow> rows;
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(const bool row, select.Next());
    if (!row) return rows;
    rows.push_back(ReadRow(select));
  }
}

absl::StatusOr<StoredAttempt> SqliteStore::LoadAttempt(const std::string& job, int attempt) {
  MutexLock lock(mutex_);
  StoredAttempt stored;
  Statement plan(db_, "SELECT plan FROM attempts WHERE job = ? AND attempt = ?");
  plan.BindText(job).Bind(attempt);
  SEQPAR_ASSIGN_OR_RETURN(bool row, plan.Next());
  if (row) stored.plan = plan.Bytes(0);
  Statement blobs(db_, "SELECT grp, rank, data FROM blobs WHERE job = ? AND attempt = ?");
  blobs.BindText(job).Bind(attempt);
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(row, blobs.Next());
    if (!row) break;
    stored.blobs[blobs.Bytes(0)][static_cast<int>(blobs.Int(1))] = blobs.Bytes(2);
  }
  Statement results(db_, "SELECT rank, event FROM results WHERE job = ? AND attempt = ?");
  results.BindText(job).Bind(attempt);
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(row, results.Next());
    if (!row) break;
    stored.results[static_cast<int>(results.Int(0))] = results.Bytes(1);
  }
  return stored;
}

absl::StatusOr<std::vector<TraceRow>> SqliteStore::LoadTraces(const std::string& job, int attempt, int rank,
                                                              int64_t number, int64_t bytes) {
  MutexLock lock(mutex_);
  Statement select(db_,
                   "SELECT rank, number, chunk FROM traces WHERE job = ? AND attempt = ? AND "
                   "(rank, number) > (?, ?) ORDER BY rank, number");
  select.BindText(job).Bind(attempt).Bind(rank).Bind(number);
  std::vector<TraceRow> rows;
  while (bytes > 0) {
    SEQPAR_ASSIGN_OR_RETURN(const bool row, select.Next());
    if (!row) break;
    rows.push_back({job, attempt, static_cast<int>(select.Int(0)), select.Int(1), select.Bytes(2)});
    bytes -= static_cast<int64_t>(rows.back().chunk.size());
  }
  return rows;
}

absl::StatusOr<std::vector<std::string>> SqliteStore::LoadDrains() {
  MutexLock lock(mutex_);
  Statement select(db_, "SELECT node FROM drains ORDER BY node");
  std::vector<std::string> nodes;
  while (true) {
    SEQPAR_ASSIGN_OR_RETURN(const bool row, select.Next());
    if (!row) return nodes;
    nodes.push_back(select.Bytes(0));
  }
}

absl::StatusOr<std::string> SqliteStore::Setting(const std::string& name) {
  MutexLock lock(mutex_);
  Statement select(db_, "SELECT value FROM settings WHERE name = ?");
  select.BindText(name);
  SEQPAR_ASSIGN_OR_RETURN(const bool row, select.Next());
  return row ? select.Bytes(0) : std::string();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& folder, const StoreLimits& limits) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return MakeError(absl::StatusCode::kFailedPrecondition, reason::kStorage,
                     absl::StrCat("job store: cannot create ", folder, ": ", error.message()));
  }
  const std::string path = folder + "/jobs.sqlite";
  sqlite3* db = nullptr;
  const int opened = sqlite3_open_v2(
      path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  auto store = std::make_unique<SqliteStore>(db, limits);
  if (opened != SQLITE_OK) return SqliteError(db, path);
  const absl::Status prepared = store->Prepare();
  if (!prepared.ok()) {
    const int code = sqlite3_errcode(db) & 0xff;
    if (code == SQLITE_BUSY || code == SQLITE_LOCKED) {
      return MakeError(absl::StatusCode::kFailedPrecondition, reason::kStorage,
                       absl::StrCat("job store: another coordinator has ", path, " open"));
    }
    return Annotate(prepared, path);
  }
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace seqpar
