#include "worker/executor/probe_gpus.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda_plugin.h"
#include "worker/executor/die_with_parent.h"
#include "worker/executor/measure_device.h"

namespace seqpar {
namespace {

// Beside what a rank allocates: its context, its kernels' code, NCCL's buffers.
constexpr int64_t kReserveBytes = int64_t{2} << 30;
// Between GPUs of a node, until it is measured: a fifth of NVLink on Hopper, twice PCIe 5.
constexpr LinkRates kAssumedLink{10e-6, 1e11};

absl::StatusOr<DeviceSpec> Probe(const GpuInfo& gpu) {
  BackendConfig config;
  config.kind = "cuda";
  config.ordinal = gpu.ordinal;
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<RankBackend> backend, MakeRankBackend(config));
  DeviceSpec device;
  device.kind = "cuda";
  device.name = gpu.name;
  device.threads = 1;
  device.memory_bytes = std::max<int64_t>(0, gpu.free_bytes - kReserveBytes);
  SEQPAR_ASSIGN_OR_RETURN(device.rates, MeasureDeviceRates(*backend->device()));
  return device;
}

absl::Status Run() {
  SEQPAR_ASSIGN_OR_RETURN(const CudaPlugin* plugin, OpenCudaPlugin());
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<GpuInfo> gpus, plugin->list());
  if (gpus.empty()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kInternal, "the driver shows no GPU");
  }
  v1::NodeSpec node;
  for (const GpuInfo& gpu : gpus) {
    const absl::StatusOr<DeviceSpec> device = Probe(gpu);
    if (!device.ok()) return Annotate(device.status(), absl::StrCat("GPU ", gpu.ordinal, ", ", gpu.name));
    *node.add_devices() = DeviceToProto(*device);
  }
  *node.mutable_local() = LinkToProto(kAssumedLink);
  std::string json;
  const auto printed = google::protobuf::util::MessageToJsonString(node, &json);
  if (!printed.ok()) return absl::InternalError(printed.ToString());
  std::cout << json << std::endl;
  return absl::OkStatus();
}

}  // namespace

int ProbeGpusMain() {
  DieWithParent();
  EndWithPipe(STDOUT_FILENO);
  const absl::Status status = Run();
  if (status.ok()) return 0;
  std::cerr << status.message() << std::endl;
  return 1;
}

}  // namespace seqpar
