// Host memory with a limit and exact accounting.
#ifndef SEQPAR_WORKER_DEVICE_CPU_HOST_MEMORY_H_
#define SEQPAR_WORKER_DEVICE_CPU_HOST_MEMORY_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/device/device.h"

namespace seqpar {

// Blocks of 2 MiB and more lie on huge page boundaries and ask for huge pages: touching memory for the first
// time is several times faster with them. Freed ones are kept for the next allocation of that size, as long
// as what is used and what is kept together stay within the largest use so far. Thread-safe.
class HostMemory {
 public:
  // limit_bytes 0: none.
  explicit HostMemory(int64_t limit_bytes) : limit_(limit_bytes) {}
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  // 64-byte aligned, contents undefined. RESOURCE_EXHAUSTED (reason OUT_OF_MEMORY) past the limit or where
  // the system has no more. `what` names the use in the error. REQUIRES: bytes > 0.
  absl::StatusOr<void*> Allocate(int64_t bytes, const char* what);
  // `bytes` as given to Allocate.
  void Free(void* data, int64_t bytes);

  MemoryUse use() const;
  void ResetPeak();

 private:
  void ReleaseCacheAbove(int64_t cached_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t limit_;
  mutable Mutex mutex_;
  MemoryUse use_ ABSL_GUARDED_BY(mutex_);
  int64_t largest_use_ ABSL_GUARDED_BY(mutex_) =
      0;  // since construction: what the process has shown that it needs
  int64_t cached_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int64_t, std::vector<void*>> cache_ ABSL_GUARDED_BY(mutex_);  // by size, rounded to huge pages
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CPU_HOST_MEMORY_H_
