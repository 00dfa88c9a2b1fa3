// Between a job's record, what a user sees of it, and what the store keeps.
#ifndef SEQPAR_COORDINATOR_ENGINE_RECORD_CODEC_H_
#define SEQPAR_COORDINATOR_ENGINE_RECORD_CODEC_H_

#include <string>

#include "absl/status/statusor.h"
#include "coordinator/job_machine/job_record.h"
#include "coordinator/store/store.h"
#include "seqpar/v1/job.pb.h"

namespace seqpar {

// The job as its user sees it, at this moment (BootMicros, for the time left).
v1::Job ViewOf(const JobRecord& record, int64_t boot_us);

// The row that holds the record. `request` and `sequence` are left to the caller.
JobRow RowOf(const JobRecord& record, int64_t boot_us);

// The view in a row: what GetJob and ListJobs answer for a job that is not in memory. INTERNAL for a damaged
// row.
absl::StatusOr<v1::Job> ViewOfRow(const JobRow& row);

// The record of a live job; `attempt` is that of its latest attempt.
absl::StatusOr<JobRecord> RecordOf(const JobRow& row, const StoredAttempt& attempt);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_RECORD_CODEC_H_
