// The durable job store: what was acknowledged survives any crash.
#ifndef SEQPAR_COORDINATOR_STORE_STORE_H_
#define SEQPAR_COORDINATOR_STORE_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace seqpar {

// One job. The store reads the columns, never the bodies.
struct JobRow {
  int64_t sequence = 0;  // order of submission: Store::NewSequence
  std::string id;
  std::string request_id;  // unique
  std::string tenant;
  std::string request;  // the submitted job, byte for byte: what a repeated request_id is held against
  int state = 0;        // JobState
  bool live = true;     // not ended, or its staging files may still be there
  int priority = 0;
  int64_t create_us = 0;
  int64_t end_us = 0;  // 0: it has not ended
  int64_t revision = 0;
  std::string body;    // stored.Job
  std::string report;  // v1.Report; empty: none
};

// What one attempt needs to be taken up again.
struct AttemptRow {
  std::string job;
  int attempt = 0;
  std::string plan;  // v1.Plan
};
struct BlobRow {
  std::string job;
  int attempt = 0;
  std::string group;
  int rank = 0;
  std::string data;
};
struct ResultRow {
  std::string job;
  int attempt = 0;
  int rank = 0;
  std::string event;  // v1.RankEvent
};

// Which of the jobs that have ended, and of which nothing is left to clean, are to be forgotten.
struct Expiry {
  int64_t keep_jobs = 0;        // beyond the newest so many; 0: however many there are
  int64_t ended_before_us = 0;  // and those that ended before; 0: whenever they did
  bool empty() const { return keep_jobs == 0 && ended_before_us == 0; }
};

// A piece of what a rank did in time. Unlike the rows above it outlives its job's end.
struct TraceRow {
  std::string job;
  int attempt = 0;
  int rank = 0;
  int64_t number = 0;
  std::string chunk;  // v1.TraceChunk
};

// One transaction. Rows replace earlier ones with the same key, but for traces, of which the first stays.
struct WriteBatch {
  std::vector<JobRow> inserts;  // new jobs
  std::vector<JobRow> jobs;     // of jobs that were inserted; INTERNAL where one is at a later revision
  std::vector<AttemptRow> attempts;
  std::vector<BlobRow> blobs;
  std::vector<ResultRow> results;
  std::vector<TraceRow> traces;
  std::map<std::string, std::string> settings;
  std::vector<std::string> cleaned;    // jobs that have ended, and nothing is left of their staging files
  std::map<std::string, bool> drains;  // by node: drained, or no longer
  Expiry expire;                       // at most kExpireAtOnce jobs
  static constexpr int kExpireAtOnce = 500;
  bool empty() const {
    return inserts.empty() && expire.empty() && jobs.empty() && attempts.empty() && blobs.empty() &&
           results.empty() && traces.empty() && settings.empty() && cleaned.empty() && drains.empty();
  }
};

struct StoredAttempt {
  std::string plan;
  std::map<std::string, std::map<int, std::string>> blobs;  // by group, then rank
  std::map<int, std::string> results;                       // by rank
};

struct StoreLimits {
  int64_t reserve_bytes = 16 << 20;  // kept free for the ends of running jobs
  // Of all jobs; past it, or past an eighth of the file system, the traces of the oldest jobs are forgotten:
  // a small disk is for jobs.
  int64_t trace_bytes = 256 << 20;
};

// Thread-safe. Every write has reached the disk when it returns. Errors are STORAGE: RESOURCE_EXHAUSTED where
// the disk is full (nothing was written, and the next write may succeed), INTERNAL otherwise: what is on disk
// is then known only to the next process that opens it.
class Store {
 public:
  // Opens or creates the store in `folder`, which is created where it does not exist, and begins a new term.
  // FAILED_PRECONDITION where another process has it open (named), where it is on a network file system, or a
  // newer version wrote it; what an older version wrote is copied, then brought up to date. INTERNAL where
  // the file is damaged.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& folder,
                                                     const StoreLimits& limits = StoreLimits());
  // Makes the file `backup`, which Backup wrote, the store of `folder`, where there is none.
  // FAILED_PRECONDITION where there is one, or where the folder or the backup is nothing that Open would
  // take.
  static absl::Status Restore(const std::string& backup, const std::string& folder);
  virtual ~Store() = default;

  // The number of this start, from 1.
  virtual int64_t term() const = 0;
  // Whether the store came from a backup: a term of its past may be one that workers have seen later ones of.
  virtual bool restored() const = 0;
  // Makes term() greater than `seen`, durably.
  virtual absl::Status RaiseTerm(int64_t seen) = 0;

  // Never given before.
  virtual int64_t NewSequence() = 0;
  // `taken`: the ids of those inserts of which the id or request_id was taken, which change nothing.
  virtual absl::Status Write(const WriteBatch& batch, std::vector<std::string>* taken) = 0;

  // Room that is kept back on disk. Where it has been given up, because the disk was full, no new job is to
  // be written: it is there for the ends of those that run.
  virtual bool has_reserve() const = 0;
  virtual void GiveUpReserve() = 0;
  // RESOURCE_EXHAUSTED where there is still no room.
  virtual absl::Status KeepReserve() = 0;

  // Writes the store as of one moment to a new file; others read and write meanwhile.
  virtual absl::Status Backup(const std::string& file) = 0;

  // Jobs without reports, but for these two; without what was submitted, where they may be many.
  virtual absl::StatusOr<std::optional<JobRow>> FindByRequestId(const std::string& request_id) = 0;
  virtual absl::StatusOr<std::optional<JobRow>> Get(const std::string& id) = 0;
  // Newest first, those with sequence < `before`, at most `limit`, until kListBytes are reached: at least one
  // where there is any. No states: any. No tenant: of all.
  static constexpr size_t kListBytes = 4 << 20;
  virtual absl::StatusOr<std::vector<JobRow>> List(int64_t before, int limit, const std::vector<int>& states,
                                                   const std::optional<std::string>& tenant) = 0;
  virtual absl::StatusOr<std::vector<JobRow>> LoadLive() = 0;
  virtual absl::StatusOr<StoredAttempt> LoadAttempt(const std::string& job, int attempt) = 0;
  // By rank, then number: those after (rank, number), until `bytes` are reached; at least one where there is
  // any.
  virtual absl::StatusOr<std::vector<TraceRow>> LoadTraces(const std::string& job, int attempt, int rank,
                                                           int64_t number, int64_t bytes) = 0;
  // The nodes that are drained, by name.
  virtual absl::StatusOr<std::vector<std::string>> LoadDrains() = 0;
  // "" where it was never written.
  virtual absl::StatusOr<std::string> Setting(const std::string& name) = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_STORE_H_
