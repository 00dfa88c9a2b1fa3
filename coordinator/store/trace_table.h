// The traces of a store: what may be lost, and is bounded by bytes.
#ifndef SEQPAR_COORDINATOR_STORE_TRACE_TABLE_H_
#define SEQPAR_COORDINATOR_STORE_TRACE_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/store/sqlite.h"
#include "coordinator/store/store.h"

namespace seqpar {

// Over a connection that its caller holds alone; writes are part of whatever transaction is open.
class TraceTable {
 public:
  explicit TraceTable(sqlite3* db) : db_(db) {}

  // Adds those that are not there yet. Where that makes more than `most` bytes, those of the oldest jobs go.
  // Keeps *bytes, those of all traces, up to date.
  absl::Status Write(const std::vector<TraceRow>& traces, int64_t most, int64_t* bytes);
  // Of all traces.
  absl::StatusOr<int64_t> Bytes();
  // As Store::LoadTraces.
  absl::StatusOr<std::vector<TraceRow>> Load(const std::string& job, int attempt, int rank, int64_t number,
                                             int64_t bytes);
  // Forgets those of jobs that are no longer there.
  absl::Status ForgetOrphans();

 private:
  absl::Status ForgetOld(int64_t most, int64_t* bytes);

  sqlite3* const db_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_TRACE_TABLE_H_
