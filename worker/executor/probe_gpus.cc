#include "worker/executor/probe_gpus.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "seqpar/v1/executor.pb.h"
#include "worker/backend/cuda_plugin.h"
#include "worker/device/nvml/nvml.h"
#include "worker/executor/die_with_parent.h"

namespace seqpar {
namespace {

// Beside what a rank allocates: its context, its kernels' code, NCCL's buffers.
constexpr int64_t kReserveBytes = int64_t{2} << 30;

std::string CapabilityText(int capability) { return absl::StrCat(capability / 10, ".", capability % 10); }

v1::DeviceSpec DeviceOf(const GpuInfo& gpu) {
  v1::DeviceSpec device;
  device.set_kind("cuda");
  device.set_name(gpu.name);
  device.set_threads(1);
  device.set_memory_bytes(std::max<int64_t>(0, gpu.free_bytes - kReserveBytes));
  v1::GpuFacts* facts = device.mutable_gpu();
  facts->set_uuid(gpu.uuid);
  facts->set_ordinal(gpu.ordinal);
  facts->set_compute_capability(CapabilityText(gpu.compute_capability));
  facts->set_total_bytes(gpu.memory_bytes);
  facts->set_pci_bus_id(PlainBusId(gpu.pci_bus_id));
  return device;
}

// `devices`: which device of the node has which uuid.
void AddFacts(const NvmlAnswer& answer, const GpuInventory& gpu, const std::map<std::string, int>& devices,
              v1::GpuFacts* facts) {
  facts->set_driver(answer.driver);
  facts->set_idle_bytes(gpu.memory.used_bytes);
  if (gpu.numa_node.has_value()) facts->set_numa_node(*gpu.numa_node);
  for (const auto& [uuid, links] : gpu.nvlinks) {
    const auto peer = devices.find(uuid);
    if (peer == devices.end()) continue;  // not visible to CUDA here
    v1::GpuLink* link = facts->add_nvlinks();
    link->set_device(peer->second);
    link->set_links(links);
  }
}

absl::StatusOr<v1::NodeSpec> LookAtGpus() {
  // Before CUDA's contexts take memory of their own.
  const absl::StatusOr<NvmlAnswer> nvml = AskNvml();
  SEQPAR_ASSIGN_OR_RETURN(const CudaPlugin* plugin, OpenCudaPlugin());
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<GpuInfo> gpus, plugin->list());
  if (gpus.empty()) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kInternal, "the driver shows no GPU");
  }
  v1::NodeSpec node;
  std::map<std::string, int> devices;
  for (const GpuInfo& gpu : gpus) {
    devices[gpu.uuid] = node.devices_size();
    *node.add_devices() = DeviceOf(gpu);
  }
  if (!nvml.ok()) {
    std::cerr << nvml.status().message() << std::endl;
    return node;
  }
  for (const GpuInventory& gpu : nvml->gpus) {
    const auto device = devices.find(gpu.memory.uuid);
    if (device == devices.end()) continue;
    AddFacts(*nvml, gpu, devices, node.mutable_devices(device->second)->mutable_gpu());
  }
  return node;
}

absl::StatusOr<v1::GpuMemoryReport> LookAtMemory() {
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<GpuMemory> all, AskNvmlMemory());
  v1::GpuMemoryReport report;
  for (const GpuMemory& memory : all) {
    v1::GpuMemoryReport::Gpu* gpu = report.add_gpus();
    gpu->set_uuid(memory.uuid);
    gpu->set_used_bytes(memory.used_bytes);
    for (const auto& [pid, bytes] : memory.processes) {
      v1::GpuMemoryReport::Process* process = gpu->add_processes();
      process->set_pid(pid);
      process->set_bytes(bytes);
    }
  }
  return report;
}

template <typename Message>
int Print(const absl::StatusOr<Message>& answer) {
  std::string json;
  if (answer.ok() && google::protobuf::util::MessageToJsonString(*answer, &json).ok()) {
    std::cout << json << std::endl;
    return 0;
  }
  std::cerr << answer.status().message() << std::endl;
  return 1;
}

}  // namespace

int ProbeGpusMain(int argc, char** argv) {
  DieWithParent();
  EndWithPipe(STDOUT_FILENO);
  if (argc == 0) return Print(LookAtGpus());
  if (argc == 1 && std::string(argv[0]) == "--memory") return Print(LookAtMemory());
  std::cerr << "usage: seqpar-worker probe-gpus [--memory]" << std::endl;
  return 2;
}

}  // namespace seqpar
