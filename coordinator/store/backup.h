// Copies of a job store, and a store from a copy. Only coordinator/store includes this.
#ifndef SEQPAR_COORDINATOR_STORE_BACKUP_H_
#define SEQPAR_COORDINATOR_STORE_BACKUP_H_

#include <sqlite3.h>

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace seqpar {

// Writes `db`, as of one moment, to the new file `path`: whole and on disk, or not there. `guarded` runs each
// step of the copy while `db` may be used; between two steps others may write to it. ALREADY_EXISTS where
// there is such a file; RESOURCE_EXHAUSTED where the disk is full.
absl::Status CopyDatabase(sqlite3* db, const std::string& path,
                          const std::function<absl::Status(const std::function<absl::Status()>&)>& guarded);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_BACKUP_H_
