#include "coordinator/store/trace_table.h"

#include "common/base/status.h"

namespace seqpar {

absl::StatusOr<int64_t> TraceTable::Bytes() {
  Statement sum(db_, "SELECT COALESCE(SUM(LENGTH(chunk)), 0) FROM traces");
  SEQPAR_RETURN_IF_ERROR(sum.Next().status());
  return sum.Int(0);
}

absl::Status TraceTable::Write(const std::vector<TraceRow>& traces, int64_t most, int64_t* bytes) {
  if (traces.empty()) return absl::OkStatus();
  Statement insert(db_,
                   "INSERT OR IGNORE INTO traces (job, attempt, rank, number, chunk) VALUES (?, ?, ?, ?, ?)");
  for (const TraceRow& row : traces) {
    insert.BindText(row.job).Bind(row.attempt).Bind(row.rank).Bind(row.number).BindBlob(row.chunk);
    SEQPAR_RETURN_IF_ERROR(insert.Run());
    if (sqlite3_changes(db_) > 0) *bytes += static_cast<int64_t>(row.chunk.size());
  }
  return ForgetOld(most, bytes);
}

absl::Status TraceTable::ForgetOld(int64_t most, int64_t* bytes) {
  while (*bytes > most) {
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

absl::Status TraceTable::ForgetOrphans() {
  return Execute(db_, "DELETE FROM traces WHERE job NOT IN (SELECT id FROM jobs)");
}

absl::StatusOr<std::vector<TraceRow>> TraceTable::Load(const std::string& job, int attempt, int rank,
                                                       int64_t number, int64_t bytes) {
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

}  // namespace seqpar
