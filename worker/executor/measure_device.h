// What a device can do, measured through Device alone: for devices whose kernels a stream times.
#ifndef SEQPAR_WORKER_EXECUTOR_MEASURE_DEVICE_H_
#define SEQPAR_WORKER_EXECUTOR_MEASURE_DEVICE_H_

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/job/cluster.h"

namespace seqpar {

// Rates of bfloat16 products (4096^3), of causal bfloat16 attention (8192 tokens, 16 heads of 128) and of a
// copy of 256 MiB, the best of three each after one that warms up; a second or two. The peak is the larger of
// the two rates of products and attention. RESOURCE_EXHAUSTED where the device has not a GiB to spare.
absl::StatusOr<DeviceRates> MeasureDeviceRates(Device& device);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_MEASURE_DEVICE_H_
