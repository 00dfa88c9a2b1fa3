#include "worker/device/nvml/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/device/nvml/nvml_abi.h"

namespace seqpar {
namespace {

constexpr size_t kNameBytes = 128;

// Initialised as long as it lives; the library itself stays loaded.
class Nvml {
 public:
  static absl::StatusOr<std::unique_ptr<Nvml>> Open();
  ~Nvml() {
    if (ready_) shutdown();
  }

  absl::Status Check(nvmlReturn_t result, const char* what) const {
    if (result == NVML_SUCCESS) return absl::OkStatus();
    return MakeError(absl::StatusCode::kInternal, reason::kInternal,
                     absl::StrCat("NVML: ", what, ": ", error_string(result)));
  }

  nvmlReturn_t (*init)() = nullptr;
  nvmlReturn_t (*shutdown)() = nullptr;
  const char* (*error_string)(nvmlReturn_t) = nullptr;
  nvmlReturn_t (*driver_version)(char*, unsigned int) = nullptr;
  nvmlReturn_t (*count)(unsigned int*) = nullptr;
  nvmlReturn_t (*handle)(unsigned int, nvmlDevice_t*) = nullptr;
  nvmlReturn_t (*uuid)(nvmlDevice_t, char*, unsigned int) = nullptr;
  nvmlReturn_t (*name)(nvmlDevice_t, char*, unsigned int) = nullptr;
  nvmlReturn_t (*memory)(nvmlDevice_t, nvmlMemory_t*) = nullptr;
  nvmlReturn_t (*capability)(nvmlDevice_t, int*, int*) = nullptr;
  nvmlReturn_t (*pci)(nvmlDevice_t, nvmlPciInfo_t*) = nullptr;
  // Null where the driver is too old for them.
  nvmlReturn_t (*processes)(nvmlDevice_t, unsigned int*, nvmlProcessInfo_t*) = nullptr;
  nvmlReturn_t (*link_state)(nvmlDevice_t, unsigned int, int*) = nullptr;
  nvmlReturn_t (*link_pci)(nvmlDevice_t, unsigned int, nvmlPciInfo_t*) = nullptr;
  nvmlReturn_t (*link_type)(nvmlDevice_t, unsigned int, int*) = nullptr;

 private:
  bool ready_ = false;
};

absl::Status Missing(const std::string& what) {
  return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                   absl::StrCat("NVML cannot be asked: ", what, " (SEQPAR_NVML_LIBRARY names another file)"));
}

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open() {
  const char* named = std::getenv("SEQPAR_NVML_LIBRARY");
  const char* path = named != nullptr && *named != '\0' ? named : "libnvidia-ml.so.1";
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Missing(dlerror());
  auto nvml = std::make_unique<Nvml>();
  std::string absent;
  const auto find = [&](auto* call, const char* symbol) {
    *call = reinterpret_cast<std::remove_reference_t<decltype(*call)>>(dlsym(library, symbol));
    return *call != nullptr;
  };
  const auto need = [&](auto* call, const char* symbol) {
    if (!find(call, symbol)) absl::StrAppend(&absent, absent.empty() ? "" : ", ", symbol);
  };
  need(&nvml->init, "nvmlInit_v2");
  need(&nvml->shutdown, "nvmlShutdown");
  need(&nvml->error_string, "nvmlErrorString");
  need(&nvml->driver_version, "nvmlSystemGetDriverVersion");
  need(&nvml->count, "nvmlDeviceGetCount_v2");
  need(&nvml->handle, "nvmlDeviceGetHandleByIndex_v2");
  need(&nvml->uuid, "nvmlDeviceGetUUID");
  need(&nvml->name, "nvmlDeviceGetName");
  need(&nvml->memory, "nvmlDeviceGetMemoryInfo");
  need(&nvml->capability, "nvmlDeviceGetCudaComputeCapability");
  need(&nvml->pci, "nvmlDeviceGetPciInfo_v3");
  if (!absent.empty()) return Missing(absl::StrCat(path, " lacks ", absent));
  find(&nvml->processes, "nvmlDeviceGetComputeRunningProcesses_v3");
  find(&nvml->link_state, "nvmlDeviceGetNvLinkState");
  find(&nvml->link_pci, "nvmlDeviceGetNvLinkRemotePciInfo_v2");
  find(&nvml->link_type, "nvmlDeviceGetNvLinkRemoteDeviceType");
  SEQPAR_RETURN_IF_ERROR(nvml->Check(nvml->init(), "start"));
  nvml->ready_ = true;
  return nvml;
}

absl::StatusOr<std::vector<nvmlDevice_t>> Handles(const Nvml& nvml) {
  unsigned int count = 0;
  SEQPAR_RETURN_IF_ERROR(nvml.Check(nvml.count(&count), "count GPUs"));
  std::vector<nvmlDevice_t> handles(count);
  for (unsigned int i = 0; i < count; ++i) {
    SEQPAR_RETURN_IF_ERROR(nvml.Check(nvml.handle(i, &handles[i]), "find a GPU"));
  }
  return handles;
}

void AddProcesses(const Nvml& nvml, nvmlDevice_t device, GpuMemory* memory) {
  if (nvml.processes == nullptr) return;
  std::vector<nvmlProcessInfo_t> processes(64);
  for (int attempt = 0; attempt < 4; ++attempt) {  // their number may grow between two questions
    auto count = static_cast<unsigned int>(processes.size());
    const nvmlReturn_t result = nvml.processes(device, &count, processes.data());
    if (result == NVML_ERROR_INSUFFICIENT_SIZE) {
      processes.resize(2 * std::max<size_t>(count, processes.size()));
      continue;
    }
    if (result != NVML_SUCCESS) return;
    for (unsigned int i = 0; i < count; ++i) {
      const unsigned long long bytes = processes[i].usedGpuMemory;
      memory->processes.emplace_back(processes[i].pid, bytes == ~0ULL ? 0 : static_cast<int64_t>(bytes));
    }
    return;
  }
}

absl::StatusOr<GpuMemory> MemoryOf(const Nvml& nvml, nvmlDevice_t device, int64_t* total_bytes) {
  GpuMemory memory;
  char uuid[kNameBytes] = "";
  SEQPAR_RETURN_IF_ERROR(nvml.Check(nvml.uuid(device, uuid, sizeof(uuid)), "ask for a GPU's identity"));
  memory.uuid = uuid;
  nvmlMemory_t bytes = {};
  SEQPAR_RETURN_IF_ERROR(nvml.Check(nvml.memory(device, &bytes), "ask for a GPU's memory"));
  memory.used_bytes = static_cast<int64_t>(bytes.used);
  *total_bytes = static_cast<int64_t>(bytes.total);
  AddProcesses(nvml, device, &memory);
  return memory;
}

std::optional<int> NumaNodeOf(const std::string& bus_id) {
  std::ifstream file(absl::StrCat("/sys/bus/pci/devices/", bus_id, "/numa_node"));
  int node = -1;
  if (!(file >> node) || node < 0) return std::nullopt;  // -1: the machine has one only
  return node;
}

NvlinkEnds LinksOf(const Nvml& nvml, nvmlDevice_t device, const std::string& bus_id) {
  NvlinkEnds ends;
  ends.pci_bus_id = bus_id;
  if (nvml.link_state == nullptr || nvml.link_pci == nullptr) return ends;
  for (unsigned int link = 0; link < NVML_NVLINK_MAX_LINKS; ++link) {
    int up = 0, type = NVML_NVLINK_DEVICE_TYPE_GPU;
    if (nvml.link_state(device, link, &up) != NVML_SUCCESS || up == 0) continue;
    if (nvml.link_type != nullptr && nvml.link_type(device, link, &type) == NVML_SUCCESS &&
        type == NVML_NVLINK_DEVICE_TYPE_SWITCH) {
      ++ends.switches;
      continue;
    }
    nvmlPciInfo_t remote = {};
    if (nvml.link_pci(device, link, &remote) == NVML_SUCCESS) ends.gpus.push_back(PlainBusId(remote.busId));
  }
  return ends;
}

absl::StatusOr<GpuInventory> InventoryOf(const Nvml& nvml, nvmlDevice_t device) {
  GpuInventory gpu;
  SEQPAR_ASSIGN_OR_RETURN(gpu.memory, MemoryOf(nvml, device, &gpu.total_bytes));
  char name[kNameBytes] = "";
  SEQPAR_RETURN_IF_ERROR(nvml.Check(nvml.name(device, name, sizeof(name)), "ask for a GPU's name"));
  gpu.name = name;
  int major = 0, minor = 0;
  SEQPAR_RETURN_IF_ERROR(
      nvml.Check(nvml.capability(device, &major, &minor), "ask for a GPU's compute capability"));
  gpu.compute_capability = 10 * major + minor;
  nvmlPciInfo_t pci = {};
  SEQPAR_RETURN_IF_ERROR(nvml.Check(nvml.pci(device, &pci), "ask for a GPU's bus"));
  gpu.pci_bus_id = PlainBusId(pci.busId);
  gpu.numa_node = NumaNodeOf(gpu.pci_bus_id);
  return gpu;
}

}  // namespace

absl::StatusOr<NvmlAnswer> AskNvml() {
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<Nvml> nvml, Nvml::Open());
  NvmlAnswer answer;
  char driver[kNameBytes] = "";
  SEQPAR_RETURN_IF_ERROR(
      nvml->Check(nvml->driver_version(driver, sizeof(driver)), "ask for the driver's version"));
  answer.driver = driver;
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<nvmlDevice_t> handles, Handles(*nvml));
  std::vector<NvlinkEnds> ends;
  for (nvmlDevice_t handle : handles) {
    SEQPAR_ASSIGN_OR_RETURN(GpuInventory gpu, InventoryOf(*nvml, handle));
    ends.push_back(LinksOf(*nvml, handle, gpu.pci_bus_id));
    answer.gpus.push_back(std::move(gpu));
  }
  const std::vector<std::vector<int>> links = NvlinksBetween(ends);
  for (size_t i = 0; i < links.size(); ++i) {
    for (size_t j = 0; j < links.size(); ++j) {
      if (links[i][j] > 0) answer.gpus[i].nvlinks.emplace_back(answer.gpus[j].memory.uuid, links[i][j]);
    }
  }
  return answer;
}

absl::StatusOr<std::vector<GpuMemory>> AskNvmlMemory() {
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<Nvml> nvml, Nvml::Open());
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<nvmlDevice_t> handles, Handles(*nvml));
  std::vector<GpuMemory> all;
  for (nvmlDevice_t handle : handles) {
    int64_t total_bytes = 0;
    SEQPAR_ASSIGN_OR_RETURN(GpuMemory memory, MemoryOf(*nvml, handle, &total_bytes));
    all.push_back(std::move(memory));
  }
  return all;
}

std::vector<std::vector<int>> NvlinksBetween(const std::vector<NvlinkEnds>& gpus) {
  std::vector<std::vector<int>> links(gpus.size(), std::vector<int>(gpus.size(), 0));
  for (size_t i = 0; i < gpus.size(); ++i) {
    for (size_t j = 0; j < gpus.size(); ++j) {
      if (i == j) continue;
      const auto direct = std::count(gpus[i].gpus.begin(), gpus[i].gpus.end(), gpus[j].pci_bus_id);
      links[i][j] = static_cast<int>(direct) + std::min(gpus[i].switches, gpus[j].switches);
    }
  }
  return links;
}

std::string PlainBusId(const std::string& bus_id) {
  std::string plain = bus_id;
  for (char& c : plain) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const size_t domain = plain.find(':');
  return domain != std::string::npos && domain > 4 ? plain.substr(domain - 4) : plain;
}

}  // namespace seqpar
