// The rates that the planner predicts with.
#ifndef SEQPAR_WORKER_DEVICE_CPU_CALIBRATE_H_
#define SEQPAR_WORKER_DEVICE_CPU_CALIBRATE_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "common/job/cluster.h"

namespace seqpar {

struct CpuCalibration {
  std::vector<int> head_dims = {32, 64, 128, 256};  // ascending, not empty
  // By CPU time instead of the clock on the wall: what counts where neighbours take turns with this device on
  // the cores. A device of one thread is charged with that of the calling thread and its stream's, whatever
  // else the process does; one of more threads with the process's, divided by its threads, and nothing else
  // of the process may run meanwhile.
  bool by_cpu_time = false;
  // Called before each measurement: returns when every slot of the node is about to begin the same one.
  // Empty: there is no other.
  std::function<absl::Status()> together;
};

// Of one device with all of its threads; the peak is of one thread by its CPU time (MeasureFmaPeak), times
// threads. seeded_values is not measured. About a second on a free core. RESOURCE_EXHAUSTED where the device
// has not some 100 MiB left; of what it has, up to a quarter and 256 MiB are touched.
//
// Attention: a square call of n queries and keys with a full mask takes pairs * flops / rate + 2 n * row, so
// two sizes give both; a causal one takes n * edge more than its pairs and rows.
absl::StatusOr<DeviceRates> MeasureCpuRates(Device& device, const CpuCalibration& how);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CPU_CALIBRATE_H_
