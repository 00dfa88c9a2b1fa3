// The GPUs of this node, by way of processes that look at them (worker/executor/probe_gpus.h) and measure
// them (worker/executor/calibrate.h).
#ifndef SEQPAR_WORKER_DAEMON_GPUS_H_
#define SEQPAR_WORKER_DAEMON_GPUS_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "seqpar/v1/plan.pb.h"
#include "worker/config.h"
#include "worker/daemon/probes.h"

namespace seqpar {

struct FoundDevices {
  v1::NodeSpec node;
  // Devices that could not be measured, and why. They have the rates of one that could, and take no ranks
  // until they can (GpuWatch).
  std::map<int, std::string> unmeasured;
};

// Every GPU that the driver shows, in its order, with its rates, and the links between them, all GPUs
// measured at once; several ranks on one have their part of its rates each. UNAVAILABLE says what is missing:
// plug-in, driver, library, version, architecture. Where none can be measured, why the first could not.
// CANCELLED as soon as `stop_fd` becomes readable; DEADLINE_EXCEEDED where the process that lists them hangs,
// as one that asks a sick card may.
absl::StatusOr<FoundDevices> FindGpus(const WorkerConfig& config, int stop_fd);

// A process that measures one GPU alone; what it prints is of use only to see that it can.
ProbeCommand MeasureAlone(const WorkerConfig& config, int ordinal, int device);
// What measuring may take: a context on each of eight GPUs with a driver that is not loaded yet, a cold
// library, two seconds of measuring, and NCCL's start.
inline constexpr int64_t kMeasureGpuUs = 90'000'000;

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DAEMON_GPUS_H_
