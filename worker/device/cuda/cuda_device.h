// One NVIDIA GPU as a Device.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDA_DEVICE_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDA_DEVICE_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "common/device/device.h"

namespace seqpar {

struct CudaDeviceConfig {
  int ordinal = 0;             // as CUDA counts the visible GPUs
  int64_t memory_bytes = 0;    // limit of what Allocate and the kernels' scratch may use; 0: what is free now
  bool deterministic = false;  // only kernels that give the same bits from run to run
};

// Set in the environment, for tests, to a kernel's name (attention_table.h): attention takes no other but our
// own, whatever is there.
inline constexpr char kCudaAttentionVariable[] = "SEQPAR_TEST_CUDA_ATTENTION";

// UNAVAILABLE where there is no such GPU, no driver, or one too old. Kernels are enqueued from one thread at
// a time; streams and memory may be made from any.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaDeviceConfig& config);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDA_DEVICE_H_
