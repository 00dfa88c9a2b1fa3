// Validation of submitted jobs: one answer with every violation.
#ifndef SEQPAR_COORDINATOR_VALIDATE_VALIDATE_H_
#define SEQPAR_COORDINATOR_VALIDATE_VALIDATE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/data_roots.h"
#include "common/base/status.h"
#include "common/job/job.h"
#include "seqpar/v1/job.pb.h"

namespace seqpar {

// What a file was at submit; a change fails the job with INPUT_CHANGED.
struct FileFingerprint {
  int64_t inode = 0;
  int64_t bytes = 0;
  int64_t mtime_ns = 0;
  friend bool operator==(const FileFingerprint&, const FileFingerprint&) = default;
};
// Of the file at `path`, opened beneath its root. Errors: DataRoots::Open's.
absl::StatusOr<FileFingerprint> FingerprintFile(const DataRoots& roots, const std::string& path);

struct ValidatedJob {
  JobSpec spec;  // every path absolute, tokens and batch known
  // Of the weights' file: outside the layers used, and rotary buffers.
  int64_t ignored_tensors = 0;
  std::map<std::string, FileFingerprint> inputs;  // by absolute path
};

// INVALID_ARGUMENT (INVALID_JOB) with every violation at once: field paths as in the job file, what is wrong,
// the nearest legal value. Looks at the headers of the files that the job names (inputs, weights or Hugging
// Face folders with their config.json), never at their data. Reads files: not for a thread that must not
// wait. `unread`: what is wrong with fields that whoever read the job left out of it; the answer begins with
// it.
absl::StatusOr<ValidatedJob> ValidateJob(const v1::Job& job, const DataRoots& roots,
                                         std::vector<Violation> unread = {});

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_VALIDATE_VALIDATE_H_
