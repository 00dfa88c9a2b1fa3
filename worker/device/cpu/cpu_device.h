// The CPU as a Device: streams are host threads, kernels run on a pool of threads that all streams share.
#ifndef SEQPAR_WORKER_DEVICE_CPU_CPU_DEVICE_H_
#define SEQPAR_WORKER_DEVICE_CPU_CPU_DEVICE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/device/device.h"

namespace seqpar {

struct CpuDeviceConfig {
  int threads = 1;           // threads that one kernel uses, the stream's own included
  int64_t memory_bytes = 0;  // limit of what Allocate and the kernels' scratch may use; 0: none
  // The attention kernel: "auto" (the widest vectors that this processor has), "scalar" (the plain
  // reference), or the name of a Highway target, such as "AVX2".
  std::string kernel = "auto";
  // For tests: memory is handed out full of NaN, so that reading what nobody has written shows. New memory is
  // zero, which hides it.
  bool poison = false;
};

// INVALID_ARGUMENT for threads < 1, memory_bytes < 0 or a kernel that this processor or build does not have.
// The result of every kernel is the same bits whatever `threads` is.
absl::StatusOr<std::unique_ptr<Device>> MakeCpuDevice(const CpuDeviceConfig& config);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CPU_CPU_DEVICE_H_
