// A GPU's memory: a pool that keeps what was freed, and its accounting.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_DEVICE_MEMORY_H_
#define SEQPAR_WORKER_DEVICE_CUDA_DEVICE_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/device/device.h"

namespace seqpar::cuda {

// Thread-safe.
class DeviceMemory {
 public:
  // limit_bytes 0: what is free now, less a reserve for the context's own growth.
  static absl::StatusOr<std::unique_ptr<DeviceMemory>> Create(int device, int64_t limit_bytes);
  ~DeviceMemory();

  // 256-byte aligned; usable on any stream when it returns. RESOURCE_EXHAUSTED past the limit.
  absl::StatusOr<void*> Allocate(int64_t bytes, const char* what);
  void Free(void* data, int64_t bytes);
  // The same for what one stream alone uses, in its order: nothing waits.
  absl::StatusOr<void*> AllocateOn(cudaStream_t stream, int64_t bytes, const char* what);
  void FreeOn(cudaStream_t stream, void* data, int64_t bytes);
  MemoryUse use() const;
  void ResetPeak();
  int64_t limit_bytes() const { return limit_bytes_; }

 private:
  DeviceMemory(int device, int64_t limit_bytes, cudaStream_t stream)
      : device_(device), limit_bytes_(limit_bytes), stream_(stream) {}

  const int device_;
  const int64_t limit_bytes_;
  const cudaStream_t stream_;  // orders the pool; nothing else runs on it
  mutable Mutex mutex_;
  MemoryUse use_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_DEVICE_MEMORY_H_
