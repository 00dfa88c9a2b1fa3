#include "common/base/metric_names.h"

#include <utility>

#include "common/base/check.h"

namespace seqpar {
namespace {

using In = MetricProcess;
using Labels = std::vector<MetricLabel>;
using Buckets = std::vector<double>;

// --- labels ---

const MetricLabel kVersion = {"version", "of seqpar", {}};
const MetricLabel kProcess = {"process", "which of the two", {"coordinator", "worker"}};
const MetricLabel kLiveState = {"state", "of the job", {"PENDING", "RUNNING"}};
const MetricLabel kEndState = {"state", "in which the job ended", {"SUCCEEDED", "FAILED", "CANCELLED"}};
const MetricLabel kPhase = {
    "phase",
    "of the life of a job",
    {"submit", "validate", "plan", "place", "bootstrap", "shard", "execute", "merge", "report"}};
const MetricLabel kRankPhase = {"phase",
                                "of the life of a job, as far as ranks take part",
                                {"bootstrap", "shard", "execute", "merge", "report"}};
const MetricLabel kReason = {"reason",
                             "the stable reason of the first cause",
                             {"RANK_FAILED", "RANK_LOST", "PEER_LOST", "NO_PROGRESS", "BOOTSTRAP_TIMEOUT",
                              "BOOTSTRAP_MISMATCH", "OUT_OF_MEMORY", "VERIFICATION_FAILED", "RATE_ABOVE_PEAK",
                              "INPUT_CHANGED", "DEADLINE_EXCEEDED", "STORAGE", "INTERNAL"}};
const MetricLabel kQuantity = {"quantity", "step seconds, or peak bytes of a rank", {"time", "memory"}};
const MetricLabel kStrategy = {
    "strategy", "of the plan", {"megatron_sp", "ulysses", "ring", "gather", "hybrid"}};
const MetricLabel kNodeState = {
    "state", "of the node: LOST once it has no stream or its lease is over", {"READY", "DRAINING", "LOST"}};
const MetricLabel kDeviceState = {"state",
                                  "of the device: DRAINING and LOST as its node and without a rank, "
                                  "SET_ASIDE where it is given no ranks until it is "
                                  "found well",
                                  {"FREE", "BUSY", "DRAINING", "LOST", "SET_ASIDE"}};
const MetricLabel kLinkOutcome = {"outcome",
                                  "interrupted: a job came, or one of the nodes was drained",
                                  {"measured", "failed", "interrupted"}};
const MetricLabel kNode = {"node", "name of the node", {}};
const MetricLabel kDevice = {"device", "index of the device within its node", {}};
const MetricLabel kRoot = {"root", "name of the data root, as --data-root gives it", {}};
const MetricLabel kCertificate = {
    "certificate",
    "own: --tls-cert; authority: the first one of --tls-client-ca, or of a worker's --tls-ca",
    {"own", "authority"}};
const MetricLabel kStoreOperation = {"operation",
                                     "on the job store",
                                     {"write", "backup", "find", "get", "list", "load_live", "load_attempt",
                                      "load_traces", "load_drains", "setting"}};
const MetricLabel kMethod = {
    "method",
    "that was called; other: health checks, reflection, and what does not exist",
    {"JobService/CreateJob", "JobService/GetJob", "JobService/ListJobs", "JobService/WatchJob",
     "JobService/CancelJob", "JobService/PlanJob", "JobService/GetJobLogs", "JobService/GetJobTrace",
     "ClusterService/ListNodes", "ClusterService/GetNode", "ClusterService/DrainNode",
     "ClusterService/BackupStore", "FleetService/Attach", "other"}};
const MetricLabel kCode = {
    "code",
    "of gRPC",
    {"OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
     "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
     "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"}};
// Of a histogram: each code more is as many series as it has buckets, for each method, and most never come.
const MetricLabel kCodeOnceSeen = {kCode.name,
                                   "of gRPC; OK starts at zero, another code's series come with its first "
                                   "call, which seqpar_rpcs_total counts "
                                   "from zero",
                                   kCode.values};
const MetricLabel kKernel = {
    "kernel", "kind of kernel; other: copies and transposes", {"attention", "product", "pointwise", "other"}};
const MetricLabel kOperation = {
    "operation",
    "what the transfer is for; control: barriers",
    {"tensor_attention", "tensor_mlp", "ulysses", "ring", "gather", "weight_gradients", "verify", "control"}};
const MetricLabel kLink = {"link", "within the node, or to another one", {"local", "network"}};

// --- buckets ---

const Buckets kCallSeconds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
const Buckets kRpcSeconds = {0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1, 2.5, 10};
const Buckets kPhaseSeconds = {0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 14400};
const Buckets kWaitSeconds = {0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10800, 43200, 86400};
const Buckets kBootstrapSeconds = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60};
const Buckets kMarginSeconds = {0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 30, 60};
const Buckets kRatio = {0.25, 0.5, 0.67, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 4};
const Buckets kImbalance = {1.01, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2, 3, 5};
const Buckets kSkewSeconds = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30};

// --- the table ---

// Makes the rows of one process.
class Rows {
 public:
  explicit Rows(In process) : process_(process) {}
  MetricInfo Counter(Metric id, const char* name, const char* help, Labels labels) const {
    return {id, name, MetricType::kCounter, process_, help, std::move(labels), {}};
  }
  MetricInfo Gauge(Metric id, const char* name, const char* help, Labels labels) const {
    return {id, name, MetricType::kGauge, process_, help, std::move(labels), {}};
  }
  MetricInfo Histogram(Metric id, const char* name, const char* help, Labels labels, Buckets buckets) const {
    return {id, name, MetricType::kHistogram, process_, help, std::move(labels), std::move(buckets)};
  }

 private:
  const In process_;
};

std::vector<MetricInfo> CommonRows() {
  const Rows in(In::kBoth);
  return {
      in.Gauge(Metric::kBuildInfo, "seqpar_build_info", "1, with the version that runs",
               {kProcess, kVersion}),
      in.Gauge(Metric::kStartTime, "seqpar_start_time_seconds", "When the process started, Unix time", {}),
      in.Counter(Metric::kProcessCpu, "seqpar_process_cpu_seconds_total",
                 "CPU time of the process, without executors", {}),
      in.Gauge(Metric::kProcessMemory, "seqpar_process_resident_memory_bytes",
               "Resident memory of the process, without executors", {}),
      in.Gauge(Metric::kProcessOpenFds, "seqpar_process_open_fds", "Open file descriptors of the process",
               {}),
      in.Gauge(Metric::kStateDirFree, "seqpar_state_dir_free_bytes",
               "Free space, for this user, on the file system of --state-dir; none while it does not answer",
               {}),
      in.Gauge(Metric::kStateDirSize, "seqpar_state_dir_size_bytes", "Size of the file system of --state-dir",
               {}),
      in.Gauge(Metric::kDataRootFree, "seqpar_data_root_free_bytes",
               "Free space, for this user, on the file system of a data root; none while it does not answer",
               {kRoot}),
      in.Gauge(Metric::kDataRootSize, "seqpar_data_root_size_bytes", "Size of the file system of a data root",
               {kRoot}),
      in.Gauge(Metric::kCertificateExpiry, "seqpar_tls_certificate_expiry_timestamp_seconds",
               "When a certificate that the process was given ends, Unix time; read from its file at each "
               "scrape; none without TLS",
               {kCertificate}),
      in.Gauge(Metric::kCertificateLifetime, "seqpar_tls_certificate_lifetime_seconds",
               "Time from the beginning to the end of that certificate", {kCertificate}),
  };
}

std::vector<MetricInfo> CoordinatorRows() {
  const Rows in(In::kCoordinator);
  return {
      in.Gauge(Metric::kJobs, "seqpar_jobs", "Jobs that have not ended", {kLiveState, kPhase}),
      in.Counter(Metric::kJobsSubmitted, "seqpar_jobs_submitted_total", "Jobs that were taken", {}),
      in.Counter(Metric::kJobsEnded, "seqpar_jobs_ended_total", "Jobs that have ended", {kEndState}),
      in.Histogram(
          Metric::kJobPhaseSeconds, "seqpar_job_phase_seconds",
          "Time that a job stayed in a phase, as the coordinator sees it; plan is the time in the queue",
          {kPhase}, kPhaseSeconds),
      in.Histogram(
          Metric::kJobQueueWait, "seqpar_job_queue_wait_seconds",
          "From submission, or the end of the attempt before, until the devices of an attempt were taken", {},
          kWaitSeconds),
      in.Gauge(Metric::kJobQueueOldest, "seqpar_job_queue_oldest_seconds",
               "How long the job that has waited longest has waited; 0: none waits", {}),
      in.Histogram(Metric::kPlanSeconds, "seqpar_plan_seconds",
                   "Time to plan one job, for the queue or for PlanJob", {}, kCallSeconds),
      in.Counter(Metric::kAttempts, "seqpar_attempts_total", "Attempts that began", {}),
      in.Counter(Metric::kAttemptFailures, "seqpar_attempt_failures_total",
                 "Attempts that failed, by first cause; those that were cancelled, or ended because a node "
                 "was drained or for a slow rank, are none",
                 {kReason}),
      in.Histogram(Metric::kPredictionRatio, "seqpar_predicted_over_measured_ratio",
                   "Of finished attempts: what was predicted, divided by what was measured",
                   {kQuantity, kStrategy}, kRatio),
      in.Histogram(Metric::kRankImbalance, "seqpar_rank_imbalance_ratio",
                   "Of finished attempts: compute seconds of the rank that computed longest, divided by the "
                   "mean over its ranks",
                   {kStrategy}, kImbalance),
      in.Histogram(Metric::kStepSkew, "seqpar_step_skew_seconds",
                   "Of finished attempts: execute seconds of the slowest rank less those of the fastest",
                   {kStrategy}, kSkewSeconds),
      in.Gauge(Metric::kRankSlowness, "seqpar_rank_slowness_ratio",
               "Of a rank that executes: compute seconds for each flop of the layers that it finished last, "
               "divided by the median over its gang (of two in the middle the smaller); 1: as fast as the "
               "others, 2: half as fast",
               {kNode, kDevice}),
      in.Counter(Metric::kSlowRanksReplaced, "seqpar_slow_ranks_replaced_total",
                 "Attempts that were ended so that the job goes on without the device of a slow rank "
                 "(--replace-slow-ranks)",
                 {}),
      in.Gauge(Metric::kNodes, "seqpar_nodes", "Nodes that have attached since the coordinator started",
               {kNodeState}),
      in.Gauge(Metric::kNodeInfo, "seqpar_node_info", "1 for each node, with its present state",
               {kNode, kNodeState, kVersion}),
      in.Gauge(Metric::kDevices, "seqpar_devices", "Devices of the nodes that have attached", {kDeviceState}),
      in.Gauge(Metric::kLeaseLength, "seqpar_lease_length_seconds",
               "A node that is silent for this long is lost", {}),
      in.Gauge(Metric::kNodeLeaseLeft, "seqpar_node_lease_left_seconds",
               "What is left now of the lease of a node", {kNode}),
      in.Histogram(Metric::kLeaseMargin, "seqpar_lease_margin_seconds",
                   "What was left of a node's lease when a heartbeat extended it", {}, kMarginSeconds),
      in.Counter(Metric::kLinkMeasurements, "seqpar_link_measurements_total",
                 "Measurements of the link between two idle nodes that are over (--measure-links)",
                 {kLinkOutcome}),
      in.Gauge(Metric::kTerm, "seqpar_term", "Number of this start of the coordinator on its state folder",
               {}),
      in.Histogram(Metric::kStoreSeconds, "seqpar_store_seconds",
                   "Time of an operation on the job store; writes are on disk then", {kStoreOperation},
                   kCallSeconds),
      in.Counter(Metric::kStoreErrors, "seqpar_store_errors_total", "Operations on the job store that failed",
                 {kStoreOperation}),
      in.Counter(Metric::kRpcs, "seqpar_rpcs_total", "Calls that were answered; streams when they ended",
                 {kMethod, kCode}),
      in.Histogram(
          Metric::kRpcSeconds, "seqpar_rpc_seconds",
          "Time from a call's arrival to its status; of WatchJob and Attach how long the stream lived",
          {kMethod, kCodeOnceSeen}, kRpcSeconds),
      in.Gauge(Metric::kRpcsOpen, "seqpar_rpcs_open", "Calls under way", {kMethod}),
  };
}

std::vector<MetricInfo> WorkerRows() {
  const Rows in(In::kWorker);
  return {
      in.Gauge(Metric::kWorkerAttached, "seqpar_worker_attached",
               "1 while a coordinator has welcomed the node", {kNode}),
      in.Counter(Metric::kWorkerAttaches, "seqpar_worker_attaches_total",
                 "Times that a coordinator has welcomed the node", {kNode}),
      in.Gauge(Metric::kWorkerLeaseLeft, "seqpar_worker_lease_left_seconds",
               "What is left now of the node's own lease, which ends before the coordinator's; 0: over",
               {kNode}),
      in.Histogram(Metric::kWorkerHeartbeatSeconds, "seqpar_worker_heartbeat_seconds",
                   "From sending a heartbeat to its answer", {kNode}, kCallSeconds),
      in.Gauge(Metric::kRankInfo, "seqpar_rank_info", "1 for each rank that runs now; gone with it",
               {kNode,
                kDevice,
                {"job_id", "id of the job", {}},
                {"attempt", "number of the attempt", {}},
                {"rank", "number of the rank", {}},
                kStrategy}),
      in.Gauge(Metric::kRankProgress, "seqpar_rank_progress_ratio",
               "Part of its work that the rank which runs now has done; gone with it", {kNode, kDevice}),
      in.Gauge(Metric::kDeviceInfo, "seqpar_device_info", "1, with what the device is",
               {kNode,
                kDevice,
                {"kind", "of device", {"cpu", "cuda"}},
                {"model", "name of the processor or GPU", {}},
                {"UUID", "of a GPU, as dcgm-exporter spells it (GPU-...); empty for a CPU slot", {}}}),
      in.Gauge(Metric::kDeviceBusy, "seqpar_device_busy", "1 while a rank runs on the device",
               {kNode, kDevice}),
      in.Gauge(Metric::kDeviceSetAside, "seqpar_device_set_aside",
               "1 while the device is given no ranks because it was not found well", {kNode, kDevice}),
      in.Gauge(Metric::kDevicePeakFlops, "seqpar_device_peak_flops_per_second",
               "Highest rate that was measured on the device, in the job's arithmetic", {kNode, kDevice}),
      in.Counter(Metric::kDeviceTokens, "seqpar_device_tokens_total",
                 "Tokens of the rank's own share, counted as its work proceeds", {kNode, kDevice}),
      in.Counter(Metric::kDeviceFlops, "seqpar_device_flops_total",
                 "Model flops of the rank's own part, counted as its work proceeds; recomputation is none",
                 {kNode, kDevice}),
      in.Counter(Metric::kDevicePhaseSeconds, "seqpar_device_phase_seconds_total",
                 "Time that ranks spent in each phase", {kNode, kDevice, kRankPhase}),
      in.Counter(Metric::kDeviceComputeSeconds, "seqpar_device_compute_seconds_total",
                 "Time that kernels of the layers ran, without verification", {kNode, kDevice, kKernel}),
      in.Counter(Metric::kDeviceExposedSeconds, "seqpar_device_communication_exposed_seconds_total",
                 "Time that compute waited for communication", {kNode, kDevice}),
      in.Counter(Metric::kDeviceHiddenSeconds, "seqpar_device_communication_hidden_seconds_total",
                 "Time of communication that compute did not wait for", {kNode, kDevice}),
      in.Counter(Metric::kDeviceSentBytes, "seqpar_device_sent_bytes_total", "Payload sent to other ranks",
                 {kNode, kDevice, kOperation, kLink}),
      in.Counter(Metric::kDeviceSentMessages, "seqpar_device_sent_messages_total",
                 "Messages sent to other ranks", {kNode, kDevice, kOperation, kLink}),
      in.Gauge(Metric::kDeviceMemoryLimit, "seqpar_device_memory_limit_bytes",
               "Memory that ranks may use on the device", {kNode, kDevice}),
      in.Gauge(Metric::kDeviceMemoryUsed, "seqpar_device_memory_used_bytes",
               "Device memory that the rank uses now; 0: none runs", {kNode, kDevice}),
      in.Gauge(Metric::kDeviceMemoryPeak, "seqpar_device_memory_peak_bytes",
               "Most device memory that the rank used which runs now or ran last", {kNode, kDevice}),
      in.Gauge(Metric::kDeviceMemoryPredicted, "seqpar_device_memory_predicted_bytes",
               "Peak that the plan predicted for the rank which runs now or ran last", {kNode, kDevice}),
      in.Gauge(Metric::kDeviceStepPredicted, "seqpar_device_predicted_step_seconds",
               "Time of the execute phase that the plan predicted for the rank which runs now or ran last",
               {kNode, kDevice}),
      in.Counter(Metric::kDeviceExecutorsStarted, "seqpar_device_executors_started_total",
                 "Executors started, one for each rank", {kNode, kDevice}),
      in.Counter(Metric::kDeviceExecutorRestarts, "seqpar_device_executor_restarts_total",
                 "Executors that ended without having finished their rank, so that another one has to take "
                 "their place",
                 {kNode, kDevice}),
      in.Histogram(Metric::kDeviceBootstrapSeconds, "seqpar_device_bootstrap_seconds",
                   "From the start of an executor's bootstrap until its rank was connected", {kNode, kDevice},
                   kBootstrapSeconds),
      in.Gauge(Metric::kDeviceVerificationError, "seqpar_device_verification_error",
               "Worst error that the last verified rank found; 0: none was verified", {kNode, kDevice}),
      in.Gauge(Metric::kDeviceVerificationBound, "seqpar_device_verification_error_bound",
               "Bound of the job of the last verified rank", {kNode, kDevice}),
  };
}

std::vector<MetricInfo> MakeTable() {
  std::vector<MetricInfo> table;
  for (const std::vector<MetricInfo>& rows : {CommonRows(), CoordinatorRows(), WorkerRows()}) {
    for (const MetricInfo& row : rows) {
      SEQPAR_CHECK(static_cast<size_t>(row.id) == table.size());  // rows stand as the enumeration does
      table.push_back(row);
    }
  }
  return table;
}

}  // namespace

const char* MetricTypeName(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "";
}

const char* MetricProcessName(MetricProcess process) {
  switch (process) {
    case MetricProcess::kBoth:
      return "coordinator and worker";
    case MetricProcess::kCoordinator:
      return "coordinator";
    case MetricProcess::kWorker:
      return "worker";
  }
  return "";
}

const std::vector<MetricInfo>& AllMetrics() {
  static const std::vector<MetricInfo>& table = *new std::vector<MetricInfo>(MakeTable());
  return table;
}

const MetricInfo& InfoOf(Metric metric) { return AllMetrics()[static_cast<size_t>(metric)]; }

}  // namespace seqpar
