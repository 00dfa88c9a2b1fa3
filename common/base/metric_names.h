// Every metric of seqpar, in one table: registration, docs/metrics.md, dashboards and alert rules come from
// it or are checked against it.
#ifndef SEQPAR_COMMON_BASE_METRIC_NAMES_H_
#define SEQPAR_COMMON_BASE_METRIC_NAMES_H_

#include <string>
#include <vector>

namespace seqpar {

enum class MetricType { kCounter, kGauge, kHistogram };
enum class MetricProcess { kBoth, kCoordinator, kWorker };
const char* MetricTypeName(MetricType type);           // "counter", ...
const char* MetricProcessName(MetricProcess process);  // "coordinator and worker", ...

// In the order of the table. docs/metrics.md says what each is.
enum class Metric {
  // Both processes.
  kBuildInfo,
  kStartTime,
  kProcessCpu,
  kProcessMemory,
  kProcessOpenFds,
  kStateDirFree,
  kStateDirSize,
  kDataRootFree,
  kDataRootSize,
  kCertificateExpiry,
  kCertificateLifetime,
  // Coordinator: jobs.
  kJobs,
  kJobsSubmitted,
  kJobsEnded,
  kJobPhaseSeconds,
  kJobQueueWait,
  kJobQueueOldest,
  kPlanSeconds,
  kAttempts,
  kAttemptFailures,
  // Coordinator: predictions, and ranks side by side.
  kPredictionRatio,
  kRankImbalance,
  kStepSkew,
  kRankSlowness,
  kSlowRanksReplaced,
  // Coordinator: nodes and devices.
  kNodes,
  kNodeInfo,
  kDevices,
  kLeaseLength,
  kNodeLeaseLeft,
  kLeaseMargin,
  kLinkMeasurements,
  // Coordinator: itself.
  kTerm,
  kStoreSeconds,
  kStoreErrors,
  kRpcs,
  kRpcSeconds,
  kRpcsOpen,
  // Worker: the daemon.
  kWorkerAttached,
  kWorkerAttaches,
  kWorkerLeaseLeft,
  kWorkerHeartbeatSeconds,
  // Worker: ranks that run now.
  kRankInfo,
  kRankProgress,
  // Worker: each device.
  kDeviceInfo,
  kDeviceBusy,
  kDeviceSetAside,
  kDevicePeakFlops,
  kDeviceTokens,
  kDeviceFlops,
  kDevicePhaseSeconds,
  kDeviceComputeSeconds,
  kDeviceExposedSeconds,
  kDeviceHiddenSeconds,
  kDeviceSentBytes,
  kDeviceSentMessages,
  kDeviceMemoryLimit,
  kDeviceMemoryUsed,
  kDeviceMemoryPeak,
  kDeviceMemoryPredicted,
  kDeviceStepPredicted,
  kDeviceExecutorsStarted,
  kDeviceExecutorRestarts,
  kDeviceBootstrapSeconds,
  kDeviceVerificationError,
  kDeviceVerificationBound,
};

struct MetricLabel {
  const char* name;
  const char* meaning;
  std::vector<std::string> values;  // all that there are; empty: not known beforehand
};

struct MetricInfo {
  Metric id;
  const char* name;  // seqpar_..., a base unit, counters end in _total
  MetricType type;
  MetricProcess process;
  const char* help;
  std::vector<MetricLabel> labels;
  std::vector<double> buckets;  // of a histogram: upper bounds, ascending, without +Inf
};

const MetricInfo& InfoOf(Metric metric);
// In the order of the enumeration.
const std::vector<MetricInfo>& AllMetrics();

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_METRIC_NAMES_H_
