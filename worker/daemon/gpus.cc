#include "worker/daemon/gpus.h"

#include <google/protobuf/util/json_util.h>

#include <memory>
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
// The same, a cold library, two seconds of measuring, and NCCL's start.
constexpr int64_t kMeasureUs = 90'000'000;
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

}  // namespace

absl::StatusOr<v1::NodeSpec> FindGpus(const WorkerConfig& config, int stop_fd) {
  SEQPAR_ASSIGN_OR_RETURN(v1::NodeSpec node, Look(stop_fd));
  if (config.ranks_per_gpu > 1) node = Repeated(node, config.ranks_per_gpu);
  const int count = node.devices_size();
  std::vector<ProbeCommand> commands;
  for (int i = 0; i < count; ++i) {
    commands.push_back({{"--gpu", absl::StrCat(node.devices(i).gpu().ordinal()), "--threads", "1", "--slot",
                         absl::StrCat(i), "--slots", absl::StrCat(count)},
                        TransportSettings(config, absl::StrCat("device-", i))});
  }
  SEQPAR_ASSIGN_OR_RETURN(const ProbeResults results, RunProbes(commands, kMeasureUs, stop_fd));
  for (int i = 0; i < count; ++i) {
    *node.mutable_devices(i)->mutable_rates() = results.devices[i].devices(0).rates();
  }
  const bool linked = results.start_seconds > 0;
  if (!linked && count > 1) LogWarning("the links between GPUs are not measured but assumed");
  *node.mutable_local() = LinkToProto(linked ? MeanLink(results.devices) : kNoLink);
  node.set_start_seconds(results.start_seconds);
  const v1::DeviceRates& rates = node.devices(0).rates();
  LogInfo("GPUs measured", {{"gpus", count},
                            {"gemm_gflops", rates.gemm_flops() / 1e9},
                            {"attention_forward_gflops", rates.attention_forward_flops() / 1e9},
                            {"attention_backward_gflops", rates.attention_backward_flops() / 1e9},
                            {"copy_gbytes", rates.copy_bytes() / 1e9},
                            {"link_measured", linked},
                            {"link_latency_us", node.local().latency() * 1e6},
                            {"link_gbytes", node.local().bandwidth() / 1e9},
                            {"start_seconds", node.start_seconds()}});
  return node;
}

}  // namespace seqpar
