// What this process may use of the machine: its cgroup's limits (versions 1 and 2) are below the machine's in
// containers and under service managers.
#ifndef SEQPAR_COMMON_BASE_CGROUP_H_
#define SEQPAR_COMMON_BASE_CGROUP_H_

#include <cstdint>
#include <string>

namespace seqpar {

// In bytes: the smaller of the machine's memory and CgroupMemoryLimit.
int64_t UsableMemoryBytes();

// At least 1: the processors that this thread may run on, or CgroupCores rounded down where that is less. A
// thread beyond a quota is stopped for the rest of each period, and its gang waits for it.
int UsableCores();

// The smallest limit, in bytes, on the memory of the cgroups that `membership` (/proc/self/cgroup) names
// under `mount` (/sys/fs/cgroup), and of those above them; INT64_MAX where there is none.
int64_t CgroupMemoryLimit(const std::string& membership, const std::string& mount);

// The same of processor time: the smallest quota over its period, in cores; infinity where there is none.
double CgroupCores(const std::string& membership, const std::string& mount);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_CGROUP_H_
