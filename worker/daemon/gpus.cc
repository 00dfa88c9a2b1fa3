#include "worker/daemon/gpus.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "worker/daemon/calibration.h"
#include "worker/daemon/executor_processes.h"
#include "worker/daemon/probe_process.h"
#include "worker/daemon/probes.h"
#include "worker/daemon/transport_settings.h"

namespace seqpar {
namespace {

// A context on each of eight GPUs, with a driver that is not loaded yet.
constexpr int64_t kLookUs = 30'000'000;
// Of a GPU that has no other beside it: never used for a plan on this node.
constexpr LinkRates kNoLink{10e-6, 1e11};

absl::StatusOr<v1::NodeSpec> Look(int stop_fd) {
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<ProbeProcess> probe,
                          ProbeProcess::Start("looking at the GPUs", {"seqpar-worker", "probe-gpus"},
                                              EnvironmentWith({}), kLookUs));
  SEQPAR_ASSIGN_OR_RETURN(const std::string json, probe->Wait(stop_fd));
  const std::string said(absl::StripAsciiWhitespace(probe->said()));
  if (!said.empty()) LogWarning("GPUs are not known in full", {{"why", said}});
  v1::NodeSpec node;
  if (!google::protobuf::util::JsonStringToMessage(json, &node).ok() || node.devices().empty()) {
    return absl::UnavailableError("the process that looks at the GPUs printed what is no list of them");
  }
  return node;
}

// Several devices of each GPU, which share its memory.
v1::NodeSpec Repeated(const v1::NodeSpec& node, int each) {
  v1::NodeSpec repeated;
  for (const v1::DeviceSpec& gpu : node.devices()) {
    for (int i = 0; i < each; ++i) {
      v1::DeviceSpec* device = repeated.add_devices();
      *device = gpu;
      device->set_memory_bytes(gpu.memory_bytes() / each);
      device->mutable_gpu()->clear_nvlinks();  // they name devices by other numbers
    }
  }
  return repeated;
}

// Device `slot` of `slots` that measure at the same time.
ProbeCommand CommandOf(const WorkerConfig& config, int ordinal, int device, int slot, int slots) {
  return {{"--gpu", absl::StrCat(ordinal), "--threads", "1", "--slot", absl::StrCat(slot), "--slots",
           absl::StrCat(slots)},
          TransportSettings(config, absl::StrCat("device-", device))};
}

// Of several at once; `apart`: each as if it were alone, so that one that fails stops no other.
absl::StatusOr<ProbeResults> Measure(const WorkerConfig& config, const v1::NodeSpec& node,
                                     const std::vector<int>& devices, bool apart, int stop_fd) {
  std::vector<ProbeCommand> commands;
  for (const int device : devices) {
    const int slot = apart ? 0 : static_cast<int>(commands.size());
    commands.push_back(CommandOf(config, node.devices(device).gpu().ordinal(), device, slot,
                                 apart ? 1 : static_cast<int>(devices.size())));
  }
  return RunProbes(commands, kMeasureGpuUs, stop_fd);
}

bool AllMeasured(const ProbeResults& results) {
  return std::all_of(results.devices.begin(), results.devices.end(), [](const auto& d) { return d.ok(); });
}

// What measuring every device came to.
struct Measured {
  std::vector<int> devices;         // that were
  std::vector<v1::NodeSpec> specs;  // theirs, each with one device
  std::map<int, std::string> why;   // the others were not
  double start_seconds = 0;         // 0: they were not connected
};

absl::StatusOr<Measured> MeasureAll(const WorkerConfig& config, const v1::NodeSpec& node, int stop_fd) {
  std::vector<int> all(node.devices_size());
  std::iota(all.begin(), all.end(), 0);
  SEQPAR_ASSIGN_OR_RETURN(ProbeResults results, Measure(config, node, all, /*apart=*/false, stop_fd));
  const bool whole = AllMeasured(results);
  if (!whole && all.size() > 1) {
    SEQPAR_ASSIGN_OR_RETURN(results, Measure(config, node, all, /*apart=*/true, stop_fd));
  }
  Measured measured;
  for (const int device : all) {
    const absl::StatusOr<v1::NodeSpec>& result = results.devices[device];
    if (result.ok()) {
      measured.devices.push_back(device);
      measured.specs.push_back(*result);
    } else {
      measured.why[device] = absl::StrCat("it cannot be measured: ", result.status().message());
    }
  }
  if (measured.devices.empty()) return results.devices[0].status();
  measured.start_seconds = results.start_seconds;
  if (whole || measured.devices.size() < 2) return measured;
  // The links between those that are well.
  SEQPAR_ASSIGN_OR_RETURN(results, Measure(config, node, measured.devices, /*apart=*/false, stop_fd));
  if (!AllMeasured(results)) return measured;
  for (size_t i = 0; i < measured.specs.size(); ++i) measured.specs[i] = *results.devices[i];
  measured.start_seconds = results.start_seconds;
  return measured;
}

}  // namespace

absl::StatusOr<FoundDevices> FindGpus(const WorkerConfig& config, int stop_fd) {
  FoundDevices found;
  v1::NodeSpec& node = found.node;
  SEQPAR_ASSIGN_OR_RETURN(node, Look(stop_fd));
  if (config.ranks_per_gpu > 1) node = Repeated(node, config.ranks_per_gpu);
  SEQPAR_ASSIGN_OR_RETURN(const Measured measured, MeasureAll(config, node, stop_fd));
  found.unmeasured = measured.why;
  for (int i = 0; i < node.devices_size(); ++i) {
    const auto at = std::find(measured.devices.begin(), measured.devices.end(), i);
    const size_t like = at == measured.devices.end() ? 0 : at - measured.devices.begin();
    DeviceSpec device = DeviceFromProto(measured.specs[like].devices(0));
    device.rates = Scaled(device.rates, 1.0 / std::max(1, config.ranks_per_gpu));
    *node.mutable_devices(i)->mutable_rates() = DeviceToProto(device).rates();
  }
  const bool linked = measured.start_seconds > 0;
  if (!linked && measured.devices.size() > 1) {
    LogWarning("the links between GPUs are not measured but assumed");
  }
  *node.mutable_local() = LinkToProto(linked ? MeanLink(measured.specs) : kNoLink);
  node.set_start_seconds(measured.start_seconds);
  const v1::DeviceRates& rates = node.devices(measured.devices.front()).rates();
  LogInfo("GPUs measured", {{"gpus", static_cast<int64_t>(measured.devices.size())},
                            {"gemm_gflops", rates.gemm_flops() / 1e9},
                            {"attention_forward_gflops", rates.attention_forward_flops() / 1e9},
                            {"attention_backward_gflops", rates.attention_backward_flops() / 1e9},
                            {"copy_gbytes", rates.copy_bytes() / 1e9},
                            {"link_measured", linked},
                            {"link_latency_us", node.local().latency() * 1e6},
                            {"link_gbytes", node.local().bandwidth() / 1e9},
                            {"start_seconds", node.start_seconds()}});
  return found;
}

ProbeCommand MeasureAlone(const WorkerConfig& config, int ordinal, int device) {
  return CommandOf(config, ordinal, device, 0, 1);
}

}  // namespace seqpar
