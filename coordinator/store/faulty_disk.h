// A disk under SQLite whose writes and fsyncs fail where a test arms a failpoint. Only coordinator/store
// includes this.
#ifndef SEQPAR_COORDINATOR_STORE_FAULTY_DISK_H_
#define SEQPAR_COORDINATOR_STORE_FAULTY_DISK_H_

#include "absl/status/status.h"

namespace seqpar {

// Puts the failpoints of disks under every database that this process opens from now on; where they are,
// nothing happens. One thread. INTERNAL where SQLite refuses.
absl::Status PutFaultyDiskUnderSqlite();

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_STORE_FAULTY_DISK_H_
