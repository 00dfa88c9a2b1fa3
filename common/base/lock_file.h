// A file that one process at a time has.
#ifndef SEQPAR_COMMON_BASE_LOCK_FILE_H_
#define SEQPAR_COMMON_BASE_LOCK_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/base/fd.h"

namespace seqpar {

// Takes the lock of the file `path`, which is made where it is not there, and writes into it who has it: for
// people, the lock itself is the kernel's (flock). It is held until the descriptor is closed, at the latest
// by the end of this process: those that it starts do not inherit it. Not valid where another process has it:
// `holder` then says which, "pid 123 on host-a" as it sees itself. INTERNAL where the file cannot be opened
// or locked.
absl::StatusOr<UniqueFd> TakeLockFile(const std::string& path, std::string* holder);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_LOCK_FILE_H_
