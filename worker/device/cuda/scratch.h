// Memory that kernels compute in, beside their operands (common/device/cuda_scratch.h says how much).
#ifndef SEQPAR_WORKER_DEVICE_CUDA_SCRATCH_H_
#define SEQPAR_WORKER_DEVICE_CUDA_SCRATCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "worker/device/cuda/device_memory.h"

namespace seqpar::cuda {

// One block a stream, which its kernels use one after the other; it grows in stream order, without waiting.
// Accounted by the device's memory. Thread-safe; destroyed when the streams are empty, before the memory.
class Scratch {
 public:
  explicit Scratch(DeviceMemory* memory) : memory_(memory) {}
  ~Scratch();

  // At least `bytes` > 0, 256-byte aligned, for what is enqueued on `stream` until the next Take of that
  // stream. Contents undefined. RESOURCE_EXHAUSTED; `what` names the use.
  absl::StatusOr<void*> Take(cudaStream_t stream, int64_t bytes, const char* what);

 private:
  struct Block {
    void* data = nullptr;
    int64_t bytes = 0;
  };

  DeviceMemory* const memory_;
  Mutex mutex_;
  std::map<cudaStream_t, Block> blocks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_SCRATCH_H_
