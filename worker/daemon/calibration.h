// What this node's slots can do, measured with all of them busy at once, so that shared cores and bandwidth
// are in the figures. Measured in child processes: the daemon touches no device.
#ifndef SEQPAR_WORKER_DAEMON_CALIBRATION_H_
#define SEQPAR_WORKER_DAEMON_CALIBRATION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/job/cluster.h"
#include "seqpar/v1/plan.pb.h"
#include "worker/config.h"

namespace seqpar {

struct MeasuredSlots {
  std::string processor;
  std::vector<DeviceRates> slots;  // alike: the mean of what the slots measured, differences are noise
  LinkRates local;                 // between slots
  int cores = 0;                   // that the slots share
  double start_seconds = 0;        // from starting a process a slot until all are connected; 0: one slot
};

// From <state_dir>/calibration.json where it was measured under the same CalibrationKey, else measured now
// (about 2 s on an idle machine) and kept there. CANCELLED as soon as `stop_fd` becomes readable; INTERNAL or
// DEADLINE_EXCEEDED where a measurement fails. Slots without a transport between them are measured all the
// same, and their link is estimated.
absl::StatusOr<MeasuredSlots> Calibrate(const WorkerConfig& config, int stop_fd);

// What figures depend on: version, how they are measured, processor, cores, the vectors in use, slots,
// threads, and the transport's settings.
std::string CalibrationKey(const WorkerConfig& config);

// What a slot can count on while all are busy: a rate by CPU time is that of a slot that has its cores to
// itself, so where slots have more threads than there are cores, all but the peak are cut in proportion.
DeviceRates ShareOfCores(const DeviceRates& measured, int threads, int cores);

// Where the link cannot be measured. A payload byte is copied once between processes (CMA, or into and out of
// shared memory: twice), while the slots compute: half of a busy slot's copy rate. The latency is two stream
// hand-overs and the transport's own.
LinkRates EstimateLocalLink(const DeviceRates& rates);

// What devices measured of the links between them; not empty.
LinkRates MeanLink(const std::vector<v1::NodeSpec>& devices);

// "model name" of /proc/cpuinfo.
std::string ProcessorName();

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_CALIBRATION_H_
