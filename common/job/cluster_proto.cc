#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/device/device_models.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

// A cluster file says "this many": a slip of the pen must not fill the memory.
constexpr int64_t kDevicesMax = 1 << 16;
// What is said once is kept for each of them: long words must not fill it either.
constexpr int kNameBytesMax = 253, kLabelsMax = 64, kRatesMax = 64;

class ClusterChecker {
 public:
  void Add(const std::string& field, const std::string& what, const std::string& nearest = "") {
    violations_.push_back({field, what, nearest});
  }

  void Positive(const std::string& field, double value) {
    if (!(value > 0) || !std::isfinite(value)) Add(field, absl::StrCat("must be positive, is ", value));
  }

  // 0 is: left out.
  void NotNegative(const std::string& field, double value) {
    if (!(value >= 0) || !std::isfinite(value))
      Add(field, absl::StrCat("must not be negative, is ", value), "0");
  }

  void Link(const std::string& field, const v1::LinkRates& link) {
    NotNegative(field + ".latency", link.latency());
    Positive(field + ".bandwidth", link.bandwidth());
  }

  // Returns whether it is.
  bool Short(const std::string& field, const std::string& text, size_t bytes_max) {
    if (text.size() <= bytes_max) return true;
    Add(field, absl::StrCat("has ", text.size(), " bytes; at most ", bytes_max));
    return false;
  }

  // Whether what a node stands for many times is as short as names, labels and rates are.
  bool IsShort(const std::string& field, const v1::NodeSpec& node) {
    bool fits = Short(field + ".name", node.name(), kNameBytesMax);
    if (node.labels().size() > kLabelsMax) {
      Add(field + ".labels", absl::StrCat("has ", node.labels().size(), " entries; at most ", kLabelsMax));
      fits = false;
    }
    for (const auto& [key, value] : node.labels()) {
      if (key.size() <= kLabelBytesMax && value.size() <= kLabelBytesMax) continue;
      Add(field + ".labels", absl::StrCat("keys and values have at most ", kLabelBytesMax, " bytes"));
      fits = false;
      break;
    }
    for (int i = 0; i < node.devices_size() && fits; ++i) {
      const std::string device = absl::StrCat(field, ".devices[", i, "]");
      fits = Short(device + ".kind", node.devices(i).kind(), kNameBytesMax) &&
             Short(device + ".name", node.devices(i).name(), kNameBytesMax);
      if (node.devices(i).rates().attention_size() <= kRatesMax) continue;
      Add(device + ".rates.attention",
          absl::StrCat("has ", node.devices(i).rates().attention_size(), " entries; at most ", kRatesMax));
      fits = false;
    }
    return fits;
  }

  void Device(const std::string& field, const v1::DeviceSpec& device) {
    if (FindDeviceModel(device.kind()) == nullptr) {
      const std::vector<std::string> kinds = DeviceKinds();
      Add(field + ".kind",
          absl::StrCat("must be ", absl::StrJoin(kinds, " or "), ", is '", device.kind(), "'"),
          NearestName(device.kind(), kinds));
    }
    Positive(field + ".memory_bytes", static_cast<double>(device.memory_bytes()));
    if (device.threads() < 0) {
      Add(field + ".threads", absl::StrCat("must not be negative, is ", device.threads()), "1");
    }
    const v1::DeviceRates& rates = device.rates();
    Positive(field + ".rates.gemm_flops", rates.gemm_flops());
    Positive(field + ".rates.attention_forward_flops", rates.attention_forward_flops());
    Positive(field + ".rates.attention_backward_flops", rates.attention_backward_flops());
    Positive(field + ".rates.copy_bytes", rates.copy_bytes());
    Positive(field + ".rates.peak_flops", rates.peak_flops());
    NotNegative(field + ".rates.gemm_input_gradient_flops", rates.gemm_input_gradient_flops());
    NotNegative(field + ".rates.gemm_weight_gradient_flops", rates.gemm_weight_gradient_flops());
    NotNegative(field + ".rates.weight_bytes", rates.weight_bytes());
    NotNegative(field + ".rates.pointwise_bytes", rates.pointwise_bytes());
    NotNegative(field + ".rates.operation_seconds", rates.operation_seconds());
    NotNegative(field + ".rates.seeded_values", rates.seeded_values());
    NotNegative(field + ".rates.touch_bytes", rates.touch_bytes());
    NotNegative(field + ".rates.float32_gemm_flops", rates.float32_gemm_flops());
    NotNegative(field + ".rates.float32_attention_forward_flops", rates.float32_attention_forward_flops());
    NotNegative(field + ".rates.float32_attention_backward_flops", rates.float32_attention_backward_flops());
    int64_t last = 0;
    for (int i = 0; i < rates.attention_size(); ++i) {
      const std::string one = absl::StrCat(field, ".rates.attention[", i, "]");
      const v1::AttentionRates& attention = rates.attention(i);
      if (attention.head_dim() <= last) {
        Add(one + ".head_dim", absl::StrCat("must ascend from 1, is ", attention.head_dim()),
            absl::StrCat(last + 1));
      }
      last = attention.head_dim();
      Positive(one + ".forward_flops", attention.forward_flops());
      Positive(one + ".backward_flops", attention.backward_flops());
      NotNegative(one + ".forward_row_seconds", attention.forward_row_seconds());
      NotNegative(one + ".backward_row_seconds", attention.backward_row_seconds());
      NotNegative(one + ".forward_edge_seconds", attention.forward_edge_seconds());
      NotNegative(one + ".backward_edge_seconds", attention.backward_edge_seconds());
    }
  }

  // Returns the number of nodes and the number of devices of each that `node` stands for; zeros where it is
  // wrong.
  std::pair<int64_t, int64_t> Node(const std::string& field, const v1::NodeSpec& node) {
    if (!IsShort(field, node)) return {0, 0};
    if (node.name().empty()) Add(field + ".name", "is missing");
    if (node.count() < 0) Add(field + ".count", absl::StrCat("must be positive, is ", node.count()), "1");
    if (node.devices().empty()) Add(field + ".devices", "must list at least one device");
    for (int i = 0; i < node.devices_size(); ++i) {
      Device(absl::StrCat(field, ".devices[", i, "]"), node.devices(i));
    }
    if (node.devices_each() < 0) {
      Add(field + ".devices_each", absl::StrCat("must be positive, is ", node.devices_each()), "1");
    } else if (node.devices_each() > 0 && node.devices_size() > 1) {
      Add(field + ".devices_each", "repeats one device, but several are listed", "leave it out");
    }
    const int64_t count = std::max<int64_t>(node.count(), 1);
    const int64_t devices = node.devices_each() > 0 ? node.devices_each() : node.devices_size();
    if (node.cores() < 0) Add(field + ".cores", absl::StrCat("must not be negative, is ", node.cores()), "0");
    NotNegative(field + ".start_seconds", node.start_seconds());
    if (devices > 1 || node.has_local()) Link(field + ".local", node.local());
    devices_ =
        std::min(devices_ + count * devices, kDevicesMax + 1);  // stays small, however many more follow
    if (devices_ > kDevicesMax) {
      Add(field, absl::StrCat("the cluster has more than ", kDevicesMax, " devices"),
          absl::StrCat(kDevicesMax));
      return {0, 0};
    }
    if (node.devices().empty()) return {0, 0};  // whatever devices_each says: there is none to repeat
    return {count, devices};
  }

  absl::Status status() const {
    return violations_.empty() ? absl::OkStatus() : InvalidInput(reason::kInvalidArgument, violations_);
  }

 private:
  std::vector<Violation> violations_;
  int64_t devices_ = 0;
};

}  // namespace

v1::DeviceSpec DeviceToProto(const DeviceSpec& device) {
  v1::DeviceSpec proto;
  proto.set_kind(device.kind);
  proto.set_name(device.name);
  proto.set_memory_bytes(device.memory_bytes);
  proto.set_threads(device.threads);
  v1::DeviceRates* rates = proto.mutable_rates();
  rates->set_gemm_flops(device.rates.gemm_flops);
  rates->set_attention_forward_flops(device.rates.attention_forward_flops);
  rates->set_attention_backward_flops(device.rates.attention_backward_flops);
  rates->set_copy_bytes(device.rates.copy_bytes);
  rates->set_peak_flops(device.rates.peak_flops);
  rates->set_gemm_input_gradient_flops(device.rates.gemm_input_gradient_flops);
  rates->set_gemm_weight_gradient_flops(device.rates.gemm_weight_gradient_flops);
  rates->set_weight_bytes(device.rates.weight_bytes);
  rates->set_pointwise_bytes(device.rates.pointwise_bytes);
  rates->set_operation_seconds(device.rates.operation_seconds);
  rates->set_seeded_values(device.rates.seeded_values);
  rates->set_touch_bytes(device.rates.touch_bytes);
  rates->set_float32_gemm_flops(device.rates.float32_gemm_flops);
  rates->set_float32_attention_forward_flops(device.rates.float32_attention_forward_flops);
  rates->set_float32_attention_backward_flops(device.rates.float32_attention_backward_flops);
  for (const AttentionRates& attention : device.rates.attention) {
    v1::AttentionRates* out = rates->add_attention();
    out->set_head_dim(attention.head_dim);
    out->set_forward_flops(attention.forward_flops);
    out->set_backward_flops(attention.backward_flops);
    out->set_forward_row_seconds(attention.forward_row);
    out->set_backward_row_seconds(attention.backward_row);
    out->set_forward_edge_seconds(attention.forward_edge);
    out->set_backward_edge_seconds(attention.backward_edge);
  }
  return proto;
}

DeviceSpec DeviceFromProto(const v1::DeviceSpec& proto) {
  DeviceSpec device;
  device.kind = proto.kind();
  device.name = proto.name();
  device.memory_bytes = proto.memory_bytes();
  device.threads = proto.threads() > 0 ? proto.threads() : 1;
  device.rates.gemm_flops = proto.rates().gemm_flops();
  device.rates.attention_forward_flops = proto.rates().attention_forward_flops();
  device.rates.attention_backward_flops = proto.rates().attention_backward_flops();
  device.rates.copy_bytes = proto.rates().copy_bytes();
  device.rates.peak_flops = proto.rates().peak_flops();
  device.rates.gemm_input_gradient_flops = proto.rates().gemm_input_gradient_flops();
  device.rates.gemm_weight_gradient_flops = proto.rates().gemm_weight_gradient_flops();
  device.rates.weight_bytes = proto.rates().weight_bytes();
  device.rates.pointwise_bytes = proto.rates().pointwise_bytes();
  device.rates.operation_seconds = proto.rates().operation_seconds();
  device.rates.seeded_values = proto.rates().seeded_values();
  device.rates.touch_bytes = proto.rates().touch_bytes();
  device.rates.float32_gemm_flops = proto.rates().float32_gemm_flops();
  device.rates.float32_attention_forward_flops = proto.rates().float32_attention_forward_flops();
  device.rates.float32_attention_backward_flops = proto.rates().float32_attention_backward_flops();
  for (const v1::AttentionRates& in : proto.rates().attention()) {
    device.rates.attention.push_back({in.head_dim(), in.forward_flops(), in.backward_flops(),
                                      in.forward_row_seconds(), in.backward_row_seconds(),
                                      in.forward_edge_seconds(), in.backward_edge_seconds()});
  }
  return device;
}

v1::LinkRates LinkToProto(const LinkRates& link) {
  v1::LinkRates proto;
  proto.set_latency(link.latency);
  proto.set_bandwidth(link.bandwidth);
  return proto;
}

LinkRates LinkFromProto(const v1::LinkRates& proto) { return {proto.latency(), proto.bandwidth()}; }

absl::StatusOr<ClusterSnapshot> ClusterFromProto(const v1::Cluster& proto) {
  ClusterChecker checker;
  ClusterSnapshot cluster;
  std::set<std::string> names;
  if (proto.nodes().empty()) checker.Add("nodes", "must list at least one node");
  for (int i = 0; i < proto.nodes_size(); ++i) {
    const v1::NodeSpec& spec = proto.nodes(i);
    const std::string field = absl::StrCat("nodes[", i, "]");
    const std::pair<int64_t, int64_t> size = checker.Node(field, spec);
    for (int64_t n = 0; n < size.first && size.second > 0; ++n) {
      NodeSnapshot node;
      node.name = size.first > 1 ? absl::StrCat(spec.name(), "-", n) : spec.name();
      if (!spec.name().empty() && !names.insert(node.name).second) {
        checker.Add(field + ".name", absl::StrCat("another node has the name '", node.name, "'"));
        break;
      }
      for (int64_t d = 0; d < size.second; ++d) {
        node.devices.push_back(
            DeviceFromProto(spec.devices(spec.devices_each() > 0 ? 0 : static_cast<int>(d))));
      }
      node.free.assign(node.devices.size(), true);
      node.local = LinkFromProto(spec.local());
      node.cores = spec.cores();
      node.start_seconds = spec.start_seconds();
      node.labels.insert(spec.labels().begin(), spec.labels().end());
      cluster.nodes.push_back(std::move(node));
    }
  }
  if (cluster.nodes.size() > 1 || proto.has_network()) checker.Link("network", proto.network());
  cluster.network = LinkFromProto(proto.network());
  SEQPAR_RETURN_IF_ERROR(checker.status());
  return cluster;
}

}  // namespace seqpar
