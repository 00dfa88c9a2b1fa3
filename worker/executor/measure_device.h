// What a device can do, measured through Device alone: for devices whose kernels a stream times.
#ifndef SEQPAR_WORKER_EXECUTOR_MEASURE_DEVICE_H_
#define SEQPAR_WORKER_EXECUTOR_MEASURE_DEVICE_H_

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/job/cluster.h"

namespace seqpar {

// Rates of bfloat16 work, the best of three calls each after one that warms up; a second or two. Products:
// each pass with rows that are twice as many as the weights are wide, and few rows; of up to 8192 x 4096 x
// 4096. Causal attention of up to 8192 tokens, 16 heads of 64 and of 128; the kernels around them; a copy of
// up to 256 MiB; a product and attention of heads of 128 in float32. Sizes are smaller on a device that takes
// long for them. The peak is the best of all. RESOURCE_EXHAUSTED where the device has not a GiB to spare.
// seeded_values and touch_bytes are not measured.
absl::StatusOr<DeviceRates> MeasureDeviceRates(Device& device);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_MEASURE_DEVICE_H_
