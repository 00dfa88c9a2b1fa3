// The rates that the planner predicts with.
#ifndef SEQPAR_WORKER_DEVICE_CPU_CALIBRATE_H_
#define SEQPAR_WORKER_DEVICE_CPU_CALIBRATE_H_

#include "absl/status/statusor.h"
#include "common/device/device.h"

namespace seqpar {

// Of one device with all of its threads, by the clock on the wall: what shares the machine is in them. Peak
// is of one thread by its CPU time (MeasureFmaPeak).
struct CpuRates {
  double gemm_flops = 0;                // float32, a square product
  double attention_forward_flops = 0;   // 4 flops a pair and head dimension
  double attention_backward_flops = 0;  // 2.5 times that
  double copy_bytes_per_second = 0;     // payload
  double peak_flops = 0;
};

// Takes less than a second on a free core. RESOURCE_EXHAUSTED where the device has not some 100 MiB left.
// head_dim > 0.
absl::StatusOr<CpuRates> MeasureCpuRates(Device& device, int head_dim);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CPU_CALIBRATE_H_
