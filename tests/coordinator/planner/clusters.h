// The clusters and jobs that planner tests and the planner bench judge by: those of examples/ and one with a
// slow network.
#ifndef SEQPAR_TESTS_COORDINATOR_PLANNER_CLUSTERS_H_
#define SEQPAR_TESTS_COORDINATOR_PLANNER_CLUSTERS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/job/cluster.h"
#include "common/job/job.h"
#include "coordinator/planner/planner.h"

namespace seqpar {

inline ClusterSnapshot MakeCluster(int nodes, int devices, const DeviceSpec& device, const LinkRates& local,
                                   const LinkRates& network) {
  ClusterSnapshot cluster;
  cluster.network = network;
  for (int n = 0; n < nodes; ++n) {
    NodeSnapshot node;
    node.name = "node-" + std::to_string(n);
    node.devices.assign(devices, device);
    node.free.assign(devices, true);
    node.local = local;
    cluster.nodes.push_back(node);
  }
  return cluster;
}

// One thread a slot, as measured: products 80 GFLOP/s, attention 65 and 55.
inline DeviceSpec CpuSlot() { return {"cpu", "slot", int64_t{8} << 30, 1, {80e9, 65e9, 55e9, 10e9, 100e9}}; }
inline DeviceSpec H100() {
  return {
      "cuda", "NVIDIA H100", int64_t{80} * 1000 * 1000 * 1000, 1, {600e12, 550e12, 480e12, 2.5e12, 800e12}};
}
inline DeviceSpec H200() {
  return {
      "cuda", "NVIDIA H200", int64_t{141} * 1000 * 1000 * 1000, 1, {650e12, 600e12, 520e12, 3.5e12, 800e12}};
}

inline ClusterSnapshot FourSlots() { return MakeCluster(1, 4, CpuSlot(), {20e-6, 5e9}, {100e-6, 1e9}); }
inline ClusterSnapshot EightH100() { return MakeCluster(1, 8, H100(), {10e-6, 350e9}, {10e-6, 45e9}); }
inline ClusterSnapshot SixteenNodes() { return MakeCluster(16, 8, H200(), {10e-6, 350e9}, {15e-6, 45e9}); }
// Four nodes of eight GPUs, joined by what a device sees as 1 GB/s.
inline ClusterSnapshot SlowNetwork() { return MakeCluster(4, 8, H100(), {10e-6, 350e9}, {50e-6, 1e9}); }

// The quickstart's job: a real text of odd length through two layers.
inline JobSpec TextJob() {
  JobSpec job;
  job.config = {
      .hidden_size = 512, .heads = 8, .kv_heads = 8, .head_dim = 64, .intermediate_size = 1408, .layers = 2};
  job.config.rope_theta = 10000;
  job.tokens = 35149;
  job.weights.seed = job.input.seed = 1;
  return job;
}

// One layer stack of Llama-3-8B's shape.
inline JobSpec LlamaJob(int64_t tokens) {
  JobSpec job;
  job.config = {.hidden_size = 4096,
                .heads = 32,
                .kv_heads = 8,
                .head_dim = 128,
                .intermediate_size = 14336,
                .layers = 32};
  job.config.rope_theta = 500000;
  job.dtype = DType::kBF16;
  job.tokens = tokens;
  job.pass = JobPass::kForwardBackward;
  job.weights.seed = job.input.seed = job.grad_output.seed = 1;
  return job;
}

inline absl::StatusOr<PlannedJob> PlanOn(const JobSpec& job, const ClusterSnapshot& cluster,
                                         PlanOptions options = {}) {
  return PlanJob(job, cluster, Calibration(), options);
}

inline JobSpec With(JobSpec job, const std::function<void(JobSpec*)>& change) {
  change(&job);
  return job;
}

inline JobSpec WithHeads(JobSpec job, int heads, int kv_heads) {
  job.config.head_dim = job.config.head_dim * job.config.heads / heads;
  job.config.heads = heads;
  job.config.kv_heads = kv_heads;
  return job;
}

inline JobSpec WithWindow(JobSpec job, int64_t left) {
  job.mask = {MaskKind::kWindow, left, 0, {}};
  return job;
}

inline JobSpec WithStrategy(JobSpec job, StrategyKind strategy, int tensor = 0, int ulysses = 0,
                            int ring = 0) {
  job.parallelism.strategy = strategy;
  job.parallelism.tensor = tensor;
  job.parallelism.ulysses = ulysses;
  job.parallelism.ring = ring;
  return job;
}

inline JobSpec WithWorkers(JobSpec job, int min, int max) {
  job.min_workers = min;
  job.max_workers = max;
  return job;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COORDINATOR_PLANNER_CLUSTERS_H_
