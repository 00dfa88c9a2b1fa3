// The tables of the job store and their versions. Only coordinator/store includes this.
#ifndef SEQPAR_COORDINATOR_STORE_SCHEMA_H_
#define SEQPAR_COORDINATOR_STORE_SCHEMA_H_

#include <sqlite3.h>

#include <string>

#include "absl/status/status.h"

namespace seqpar {

// Brings an open store to this program's schema, in one transaction; a new one is made. Before anything of an
// earlier version is changed, the whole store is copied to `copy_prefix` + its version. FAILED_PRECONDITION,
// naming the program that wrote it, for a later version. INTERNAL where the file is damaged.
absl::Status MigrateSchema(sqlite3* db, const std::string& copy_prefix);

// Damaged files and later versions are refused, as above; nothing is changed.
absl::Status CheckSchema(sqlite3* db);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_SCHEMA_H_
