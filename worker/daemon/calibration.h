// The rates of this node's slots, measured with all of them busy at once, so that shared cores and bandwidth
// are in the figures. Measured in child processes: the daemon touches no device.
#ifndef SEQPAR_WORKER_DAEMON_CALIBRATION_H_
#define SEQPAR_WORKER_DAEMON_CALIBRATION_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/job/cluster.h"
#include "worker/config.h"

namespace seqpar {

struct Calibration {
  std::string processor;
  std::vector<DeviceRates> slots;  // alike: the mean of what the slots measured, differences are noise
  LinkRates local;                 // between slots
};

// From <state_dir>/calibration.json where it was measured by this version on this processor with these slots
// and threads, else measured now (under 2 s on an idle machine) and kept there. CANCELLED as soon as
// `stop_fd` becomes readable; INTERNAL or DEADLINE_EXCEEDED where a measurement fails.
absl::StatusOr<Calibration> Calibrate(const WorkerConfig& config, int stop_fd);

// What a slot can count on while all are busy: a measured rate is that of a moment in which nobody shared the
// slot's cores, so where slots have more threads than there are cores, all but the peak are cut in
// proportion.
DeviceRates ShareOfCores(const DeviceRates& measured, int threads, int cores);

// A payload byte is copied once between processes (CMA, or into and out of shared memory: twice), while the
// slots compute: half of a busy slot's copy rate. The latency is two stream hand-overs and the transport's
// own.
LinkRates EstimateLocalLink(const DeviceRates& rates);

// "model name" of /proc/cpuinfo.
std::string ProcessorName();

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_CALIBRATION_H_
