// A cluster as the planner sees it: a snapshot, no live objects.
#ifndef SEQPAR_COMMON_JOB_CLUSTER_H_
#define SEQPAR_COMMON_JOB_CLUSTER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace seqpar {

struct DeviceRates {
  double gemm_flops = 0;  // flops/s
  double attention_forward_flops = 0;
  double attention_backward_flops = 0;
  double copy_bytes = 0;  // bytes/s
  double peak_flops = 0;
};

// What one device gets while every device of its node sends: rates of devices, too, are those of a busy node.
struct LinkRates {
  double latency = 0;    // seconds
  double bandwidth = 0;  // bytes/s, each direction
};

struct DeviceSpec {
  std::string kind;  // "cpu" | "cuda"
  std::string name;
  int64_t memory_bytes = 0;
  int threads = 1;
  DeviceRates rates;
};

struct NodeSnapshot {
  std::string name;
  std::vector<DeviceSpec> devices;
  std::vector<bool> free;  // one a device
  bool ready = true;       // takes new ranks
  LinkRates local;
};

struct ClusterSnapshot {
  std::vector<NodeSnapshot> nodes;
  LinkRates network;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_CLUSTER_H_
