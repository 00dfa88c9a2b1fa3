// The output file from its first byte to its name (docs/reliability.md). Blocking file I/O: for worker
// threads only.
//
// A job's staging file lies beside its target, ".<target's name>.seqpar-<job>-<attempt>.partial": the same
// file system, so that the last step is a rename.
// The folder of the output is opened beneath its data root, and everything happens in it by name: who swaps a
// folder on the way for a link makes nothing happen elsewhere.
#ifndef SEQPAR_COORDINATOR_COMMIT_STAGING_H_
#define SEQPAR_COORDINATOR_COMMIT_STAGING_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/data_roots.h"
#include "common/job/job.h"
#include "coordinator/validate/validate.h"

namespace seqpar {

std::string StagingPath(const std::string& target, const std::string& job, int attempt);

// INPUT_CHANGED, naming the file, where an input is no longer what it was at submit.
absl::Status CheckInputs(const DataRoots& roots, const std::map<std::string, FileFingerprint>& inputs);

// Unlinks the staging files of attempts before `attempt`, creates that of `attempt`, writes the header and
// allocates all of it on disk. STORAGE: RESOURCE_EXHAUSTED where the disk has no room for it; NOT_FOUND,
// PERMISSION_DENIED and so on for what cannot pass; INTERNAL for what may.
absl::Status PrepareStaging(const DataRoots& roots, const JobSpec& spec, const std::string& job, int attempt);

// Flushes the staging file. Its inode: by that it is known again once it has the target's name.
absl::StatusOr<int64_t> SyncStaging(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                                    int attempt);

// Renames the staging file to the target and flushes the folder. May be repeated after a crash at any point
// in it: OK where the file already has its name, which it is by `inode` (0: not known, and any file is taken
// for it). NOT_FOUND (STORAGE) where it is neither here nor there. ALREADY_EXISTS (STORAGE) where another
// file has the name and the job may not overwrite it. Where the folder cannot be flushed the file loses its
// name again, unless the job may overwrite what it finds there.
absl::Status CommitStaging(const DataRoots& roots, const JobSpec& spec, const std::string& job, int attempt,
                           int64_t inode);

// Unlinks the staging files of attempts 1 to `attempt`.
void UnlinkStaging(const DataRoots& roots, const JobSpec& spec, const std::string& job, int attempt);

// Checkpoints lie beside the target too: CheckpointBase + the number of layers behind it, and with ".partial"
// after that while the ranks write it.
struct CheckpointName {
  int attempt = 0;  // that wrote it
  int layers = 0;   // 0: there is none
};
std::string CheckpointBase(const std::string& target, const std::string& job, int attempt);
std::string CheckpointPath(const std::string& target, const std::string& job, const CheckpointName& name);

// Renames what the ranks have written and flushes the folder; never changed from then on. May be repeated.
absl::Status KeepCheckpoint(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                            const CheckpointName& name);
// Whether it is there, whole.
bool HasCheckpoint(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                   const CheckpointName& name);
// Unlinks those that `kept` takes the place of: of earlier attempts, and of its own with fewer layers.
void DropEarlierCheckpoints(const DataRoots& roots, const JobSpec& spec, const std::string& job,
                            const CheckpointName& kept);
// Unlinks the checkpoints of the job's attempts 1 to `attempt`, written or being written, but for `keep`.
void UnlinkCheckpoints(const DataRoots& roots, const JobSpec& spec, const std::string& job, int attempt,
                       const CheckpointName& keep);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_COMMIT_STAGING_H_
