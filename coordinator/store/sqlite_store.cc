// Store over SQLite: write-ahead log with synchronous=FULL, so that a commit is an fsync. The engine's thread
// writes, a batch a transaction; others read between.
#include <algorithm>
#include <atomic>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/failpoints.h"
#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "coordinator/store/backup.h"
#include "coordinator/store/faulty_disk.h"
#include "coordinator/store/schema.h"
#include "coordinator/store/sqlite.h"
#include "coordinator/store/store.h"
#include "coordinator/store/store_folder.h"
#include "coordinator/store/trace_table.h"

namespace seqpar {
namespace {

constexpr char kColumns[] =
    "sequence, id, request_id, request, state, live, priority, create_us, end_us, revision, body, tenant";
constexpr char kColumnsOfMany[] =
    "sequence, id, request_id, '', state, live, priority, create_us, end_us, revision, body, tenant";

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
  row.end_us = statement.Int(8);
  row.revision = statement.Int(9);
  row.body = statement.Bytes(10);
  row.tenant = statement.Bytes(11);
  return row;
}

// Of a row that was not updated: OK where it is not there, since its insert was refused. What is there is at
// a later revision: a decision about a state of the job that is past.
absl::Status CheckAbsent(sqlite3* db, const JobRow& row) {
  Statement find(db, "SELECT revision FROM jobs WHERE id = ?");
  SEQPAR_ASSIGN_OR_RETURN(const bool there, find.BindText(row.id).Next());
  if (!there) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInternal, reason::kStorage,
                   absl::StrCat("job store: ", row.id, " is at revision ", find.Int(0), ", later than ",
                                row.revision, ", which was to be written"));
}

class SqliteStore : public Store {
 public:
  SqliteStore(StoreFolder folder, const StoreLimits& limits, sqlite3* db)
      : limits_(On(folder, limits)), folder_(std::move(folder)), db_(db) {}
  ~SqliteStore() override { sqlite3_close_v2(db_); }

  absl::Status Prepare();

  int64_t term() const override { return term_; }
  bool restored() const override { return restored_; }
  absl::Status RaiseTerm(int64_t seen) override;
  int64_t NewSequence() override { return ++sequence_; }
  absl::Status Write(const WriteBatch& batch, std::vector<std::string>* taken) override;
  bool has_reserve() const override { return has_reserve_; }
  void GiveUpReserve() override;
  absl::Status KeepReserve() override;
  absl::Status Backup(const std::string& file) override {
    return CopyDatabase(db_, file, [this](const std::function<absl::Status()>& step) {
      MutexLock lock(mutex_);
      return step();
    });
  }
  absl::StatusOr<std::optional<JobRow>> FindByRequestId(const std::string& request_id) override {
    return FindOne("request_id", request_id);
  }
  absl::StatusOr<std::optional<JobRow>> Get(const std::string& id) override { return FindOne("id", id); }
  absl::StatusOr<std::vector<JobRow>> List(int64_t before, int limit, const std::vector<int>& states,
                                           const std::optional<std::string>& tenant) override;
  absl::StatusOr<std::vector<JobRow>> LoadLive() override;
  absl::StatusOr<StoredAttempt> LoadAttempt(const std::string& job, int attempt) override;
  absl::StatusOr<std::vector<TraceRow>> LoadTraces(const std::string& job, int attempt, int rank,
                                                   int64_t number, int64_t bytes) override {
    MutexLock lock(mutex_);
    return TraceTable(db_).Load(job, attempt, rank, number, bytes);
  }
  absl::StatusOr<std::vector<std::string>> LoadDrains() override;
  absl::StatusOr<std::string> Setting(const std::string& name) override;

 private:
  static StoreLimits On(const StoreFolder& folder, StoreLimits limits) {
    limits.trace_bytes = std::min(limits.trace_bytes, folder.disk_bytes() / 8);
    return limits;
  }
  absl::StatusOr<std::optional<JobRow>> FindOne(const char* column, const std::string& value);
  absl::Status WriteRows(const WriteBatch& batch, std::vector<std::string>* taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status InsertRows(const std::vector<JobRow>& rows, std::vector<std::string>* taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Forgets what `expiry` says, traces too; *forgot: whether there was any.
  absl::Status Expire(const Expiry& expiry, bool* forgot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What a start writes: the schema, and the next term.
  absl::Status BeginTerm() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteTerm(int64_t term) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const StoreLimits limits_;
  std::atomic<int64_t> term_{0}, sequence_{0};
  std::atomic<bool> has_reserve_{false};
  bool restored_ = false;
  Mutex mutex_;
  StoreFolder folder_ ABSL_GUARDED_BY(mutex_);
  sqlite3* const db_ ABSL_PT_GUARDED_BY(mutex_);
  int64_t trace_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status SqliteStore::Prepare() {
  MutexLock lock(mutex_);
  absl::Status begun = BeginTerm();
  if (absl::IsResourceExhausted(begun)) {
    // Gangs run on without a coordinator for no longer than a lease: what is kept back is for them.
    LogError("the disk of the job store is full: the reserve is given up, to start at all",
             {{"error", begun.message()}});
    folder_.GiveUpReserve();
    begun = BeginTerm();
  }
  SEQPAR_RETURN_IF_ERROR(begun);
  SEQPAR_ASSIGN_OR_RETURN(trace_bytes_, TraceTable(db_).Bytes());
  if (const absl::Status kept = folder_.KeepReserve(limits_.reserve_bytes); !kept.ok()) {
    LogWarning("no new jobs until there is room", {{"error", kept.message()}});
  }
  has_reserve_ = folder_.has_reserve();
  return absl::OkStatus();
}

absl::Status SqliteStore::BeginTerm() {
  for (const char* pragma :
       {"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"}) {
    SEQPAR_RETURN_IF_ERROR(Execute(db_, pragma));
  }
  TellOfFailedCheckpoints(db_);
  SEQPAR_RETURN_IF_ERROR(MigrateSchema(db_, folder_.Path("jobs.sqlite.schema-")));
  Statement read(db_,
                 "SELECT (SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'term'), "
                 "(SELECT seq FROM sqlite_sequence WHERE name = 'jobs'), "
                 "(SELECT COUNT(*) FROM settings WHERE name = 'restored')");
  SEQPAR_RETURN_IF_ERROR(read.Next().status());
  const int64_t term = read.Int(0) + 1;
  sequence_ = read.Int(1);
  restored_ = read.Int(2) != 0;
  SEQPAR_RETURN_IF_ERROR(read.Run());
  SEQPAR_RETURN_IF_ERROR(Failpoint("coordinator.start.term"));
  return WriteTerm(term);
}

absl::Status SqliteStore::WriteTerm(int64_t term) {
  Statement write(db_, "INSERT OR REPLACE INTO settings (name, value) VALUES ('term', ?)");
  SEQPAR_RETURN_IF_ERROR(write.Bind(term).Run());
  term_ = term;
  return absl::OkStatus();
}

absl::Status SqliteStore::RaiseTerm(int64_t seen) {
  MutexLock lock(mutex_);
  return seen < term_ ? absl::OkStatus() : WriteTerm(seen + 1);
}

void SqliteStore::GiveUpReserve() {
  MutexLock lock(mutex_);
  folder_.GiveUpReserve();
  has_reserve_ = false;
}

absl::Status SqliteStore::KeepReserve() {
  MutexLock lock(mutex_);
  absl::Status kept = folder_.KeepReserve(limits_.reserve_bytes);
  has_reserve_ = folder_.has_reserve();
  return kept;
}

absl::Status SqliteStore::InsertRows(const std::vector<JobRow>& rows, std::vector<std::string>* taken) {
  Statement insert(
      db_,
      "INSERT INTO jobs (sequence, id, request_id, request, state, live, priority, create_us, end_us, "
      "revision, body, report, tenant) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO "
      "NOTHING");
  for (const JobRow& row : rows) {
    insert.Bind(row.sequence).BindText(row.id).BindText(row.request_id).BindBlob(row.request);
    insert.Bind(row.state).Bind(row.live).Bind(row.priority).Bind(row.create_us).Bind(row.end_us);
    insert.Bind(row.revision).BindBlob(row.body).BindBlob(row.report).BindText(row.tenant);
    SEQPAR_RETURN_IF_ERROR(insert.Run());
    if (sqlite3_changes(db_) == 0) taken->push_back(row.id);
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::Expire(const Expiry& expiry, bool* forgot) {
  if (expiry.empty()) return absl::OkStatus();
  const auto forget = [this, forgot](const char* which, int64_t bound, int64_t limit) -> absl::Status {
    Statement statement(
        db_, absl::StrCat("DELETE FROM jobs WHERE sequence IN (SELECT sequence FROM jobs WHERE live = "
                          "0 AND ",
                          which, " ORDER BY end_us LIMIT ?)"));
    SEQPAR_RETURN_IF_ERROR(statement.Bind(bound).Bind(limit).Run());
    *forgot = *forgot || sqlite3_changes(db_) > 0;
    return absl::OkStatus();
  };
  SEQPAR_RETURN_IF_ERROR(forget("end_us < ?", expiry.ended_before_us, WriteBatch::kExpireAtOnce));
  if (expiry.keep_jobs > 0) {
    Statement count(db_, "SELECT COUNT(*) FROM jobs WHERE live = 0");
    SEQPAR_RETURN_IF_ERROR(count.Next().status());
    const int64_t excess = std::min<int64_t>(count.Int(0) - expiry.keep_jobs, WriteBatch::kExpireAtOnce);
    if (excess > 0) SEQPAR_RETURN_IF_ERROR(forget("end_us >= ?", 0, excess));
  }
  return *forgot ? TraceTable(db_).ForgetOrphans() : absl::OkStatus();
}

absl::Status SqliteStore::Write(const WriteBatch& batch, std::vector<std::string>* taken) {
  taken->clear();
  if (batch.empty()) return absl::OkStatus();
  MutexLock lock(mutex_);
  int64_t trace_bytes = trace_bytes_;
  // Run at once, so under the lock.
  const auto write = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS -> absl::Status {
    SEQPAR_RETURN_IF_ERROR(WriteRows(batch, taken));
    SEQPAR_RETURN_IF_ERROR(TraceTable(db_).Write(batch.traces, limits_.trace_bytes, &trace_bytes));
    bool forgot = false;
    SEQPAR_RETURN_IF_ERROR(Expire(batch.expire, &forgot));
    if (!forgot) return absl::OkStatus();
    SEQPAR_ASSIGN_OR_RETURN(trace_bytes, TraceTable(db_).Bytes());
    return absl::OkStatus();
  };
  SEQPAR_RETURN_IF_ERROR(InTransaction(db_, write));
  trace_bytes_ = trace_bytes;
  return absl::OkStatus();
}

absl::Status SqliteStore::WriteRows(const WriteBatch& batch, std::vector<std::string>* taken) {
  SEQPAR_RETURN_IF_ERROR(InsertRows(batch.inserts, taken));
  Statement job(
      db_,
      "UPDATE jobs SET state = ?, live = ?, end_us = ?, revision = ?, body = ?, report = ? WHERE id = ? "
      "AND revision <= ?");
  for (const JobRow& row : batch.jobs) {
    job.Bind(row.state)
        .Bind(row.live)
        .Bind(row.end_us)
        .Bind(row.revision)
        .BindBlob(row.body)
        .BindBlob(row.report)
        .BindText(row.id)
        .Bind(row.revision);
    SEQPAR_RETURN_IF_ERROR(job.Run());
    if (sqlite3_changes(db_) == 0) SEQPAR_RETURN_IF_ERROR(CheckAbsent(db_, row));
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
  row.report = select.Bytes(12);
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
  Statement select(db_, absl::StrCat("SELECT ", kColumnsOfMany, " FROM jobs WHERE sequence < ?", filter,
                                     " ORDER BY sequence DESC LIMIT ?"));
  select.Bind(before);
  if (tenant) select.BindText(*tenant);
  select.Bind(limit);
  std::vector<JobRow> rows;
  for (size_t bytes = 0; bytes < kListBytes; bytes += rows.back().body.size()) {
    SEQPAR_ASSIGN_OR_RETURN(const bool row, select.Next());
    if (!row) break;
    rows.push_back(ReadRow(select));
  }
  return rows;
}

absl::StatusOr<std::vector<JobRow>> SqliteStore::LoadLive() {
  MutexLock lock(mutex_);
  Statement select(db_,
                   absl::StrCat("SELECT ", kColumnsOfMany, " FROM jobs WHERE live = 1 ORDER BY sequence"));
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
  SEQPAR_RETURN_IF_ERROR(Failpoint("coordinator.start.store"));
  if (FailpointsOn()) SEQPAR_RETURN_IF_ERROR(PutFaultyDiskUnderSqlite());
  SEQPAR_ASSIGN_OR_RETURN(StoreFolder held, StoreFolder::Lock(folder));
  const std::string path = held.Path("jobs.sqlite");
  sqlite3* db = nullptr;
  const int opened = sqlite3_open_v2(
      path.c_str(), &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  auto store = std::make_unique<SqliteStore>(std::move(held), limits, db);
  if (opened != SQLITE_OK) return SqliteError(db, path);
  SEQPAR_RETURN_IF_ERROR(Annotate(store->Prepare(), path));
  SEQPAR_RETURN_IF_ERROR(SyncStoreFolder(folder));
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace seqpar
