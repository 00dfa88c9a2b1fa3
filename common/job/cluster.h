// A cluster as the planner sees it: a snapshot, no live objects.
#ifndef SEQPAR_COMMON_JOB_CLUSTER_H_
#define SEQPAR_COMMON_JOB_CLUSTER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/tensor/dtype.h"

namespace seqpar {

// Of a node's labels and of what asks for them: keys have 1 to so many bytes, values at most as many.
inline constexpr size_t kLabelBytesMax = 63;

// Attention with one head dimension. A call of the kernel takes flops / rate for its pairs, and beside them
// seconds for its rows (packing, merging) and for its edges.
struct AttentionRates {
  int head_dim = 0;
  double forward_flops = 0;   // 4 flops a pair and unit of head_dim, full tiles
  double backward_flops = 0;  // 2.5 times as many flops
  double forward_row = 0;     // seconds for each query and each key of a call, and head
  double backward_row = 0;
  double forward_edge =
      0;  // seconds for each query and head whose keys begin or end inside those of the call
  double backward_edge = 0;
};

// What one device does while all devices of its node are busy: where slots have more threads than there are
// cores, their share of it.
struct DeviceRates {
  double gemm_flops = 0;  // flops/s
  double attention_forward_flops = 0;
  double attention_backward_flops = 0;
  double copy_bytes = 0;  // bytes/s
  double peak_flops = 0;
  // 0, as in a cluster file that leaves them out: gemm_flops.
  double gemm_input_gradient_flops = 0, gemm_weight_gradient_flops = 0;
  double weight_bytes = 0;  // bytes/s: a product takes weights / weight_bytes beside its flops; 0: copy_bytes
  double pointwise_bytes = 0;    // bytes/s read and written by norms, activations, sums; 0: copy_bytes
  double operation_seconds = 0;  // of a kernel that has next to nothing to do
  double seeded_values = 0;      // a second; 0: not known
  double touch_bytes = 0;  // bytes/s of memory that is written for the first time; 0: nothing is lost by it
  std::vector<AttentionRates> attention;  // by head dimension, ascending; none: the rates above
  // Of float32 jobs where bfloat16 ones run on tensor cores; 0: the rates above.
  double float32_gemm_flops = 0, float32_attention_forward_flops = 0, float32_attention_backward_flops = 0;
};

// Rates for a head dimension: between two that were measured in proportion, beyond them those of the nearest;
// where none was measured, the plain rates without rows and edges.
AttentionRates AttentionRatesAt(const DeviceRates& rates, int head_dim);

// The rates of jobs of one storage type: what is measured for float32 alone in the place of the rest, where
// it is.
DeviceRates RatesFor(const DeviceRates& rates, DType dtype);

// Every rate but the peak times `factor`, every time divided by it.
DeviceRates Scaled(const DeviceRates& rates, double factor);
// The mean of each, of devices that are alike and measured at the same head dimensions; not empty.
DeviceRates MeanRates(const std::vector<DeviceRates>& all);
// The least of each rate, the most of each time, where both have one.
DeviceRates SlowerOf(const DeviceRates& a, const DeviceRates& b);

// What one device gets while every device of its node sends: rates of devices, too, are those of a busy node.
struct LinkRates {
  double latency = 0;    // seconds
  double bandwidth = 0;  // bytes/s, each direction
};

struct DeviceSpec {
  std::string kind;  // of common/device/device_models.h
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
  int cores = 0;             // that its devices share; 0: each has its own
  double start_seconds = 0;  // from starting executors on all devices until they are connected; 0: not known
  std::map<std::string, std::string> labels;
  std::map<int, std::string> set_aside;  // devices that take no ranks now though the node does, and why

  bool TakesRanks(int device) const { return ready && set_aside.count(device) == 0; }
};

// Nodes with the same value of it are near each other; those without one are near each other too.
inline constexpr char kZoneLabel[] = "zone";

// Between a device of one node and one of another, both of the kind, as measured.
struct NetworkLink {
  std::string kind, a, b;  // names of nodes
  LinkRates rates;
};

struct ClusterSnapshot {
  std::vector<NodeSnapshot> nodes;
  LinkRates network;             // between nodes, where `links` do not say it better
  bool network_assumed = false;  // nobody has said so
  std::vector<NetworkLink> links;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_CLUSTER_H_
