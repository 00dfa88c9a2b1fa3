// NVML as the tests need it: answers from a script (tests/fake_gpu/script.h).
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "tests/fake_gpu/script.h"
#include "worker/device/nvml/nvml_abi.h"

namespace {

using seqpar::FakeGpu;
using seqpar::FakeGpus;

// Handles are indices, counted from 1.
nvmlDevice_t HandleOf(unsigned int index) {
  return reinterpret_cast<nvmlDevice_t>(static_cast<unsigned long>(index) + 1);
}

// Runs answer(script) unless the script says that this function fails or hangs.
template <typename Answer>
nvmlReturn_t Call(const char* function, Answer answer) {
  FakeGpus script = seqpar::ReadFakeGpus();
  while (script.hanging.count(function) != 0) pause();
  if (const auto code = script.failing.find(function); code != script.failing.end()) return code->second;
  return answer(script);
}

template <typename Answer>
nvmlReturn_t Ask(const char* function, nvmlDevice_t device, Answer answer) {
  return Call(function, [&](FakeGpus& script) {
    const unsigned long index = reinterpret_cast<unsigned long>(device) - 1;
    return index < script.gpus.size() ? answer(script, script.gpus[index]) : NVML_ERROR_NOT_FOUND;
  });
}

nvmlReturn_t Copy(const std::string& text, char* to, unsigned int length) {
  if (text.size() >= length) return NVML_ERROR_INSUFFICIENT_SIZE;
  std::memcpy(to, text.c_str(), text.size() + 1);
  return NVML_SUCCESS;
}

// As NVML spells a bus: eight digits of the domain, capitals.
void SpellBus(const FakeGpu& gpu, nvmlPciInfo_t* pci) {
  std::snprintf(pci->busId, sizeof(pci->busId), "0000%s", gpu.bus_id.c_str());
  for (char& c : pci->busId) c = static_cast<char>(c >= 'a' && c <= 'f' ? c - 'a' + 'A' : c);
}

}  // namespace

extern "C" {

#define EXPORT __attribute__((visibility("default")))

EXPORT nvmlReturn_t nvmlInit_v2() {
  return Call("nvmlInit_v2", [](FakeGpus&) { return NVML_SUCCESS; });
}
EXPORT nvmlReturn_t nvmlShutdown() { return NVML_SUCCESS; }
EXPORT const char* nvmlErrorString(nvmlReturn_t code) { return code == 999 ? "Unknown Error" : "an error"; }
EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char* to, unsigned int length) {
  return Copy("570.86.15", to, length);
}
EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int* count) {
  return Call("nvmlDeviceGetCount_v2", [&](FakeGpus& script) {
    *count = static_cast<unsigned int>(script.gpus.size());
    return NVML_SUCCESS;
  });
}
EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t* device) {
  *device = HandleOf(index);
  return NVML_SUCCESS;
}
EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char* to, unsigned int length) {
  return Ask("nvmlDeviceGetUUID", device,
             [&](FakeGpus&, FakeGpu& gpu) { return Copy(gpu.uuid, to, length); });
}
EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char* to, unsigned int length) {
  return Ask("nvmlDeviceGetName", device,
             [&](FakeGpus&, FakeGpu& gpu) { return Copy(gpu.name, to, length); });
}
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* memory) {
  return Ask("nvmlDeviceGetMemoryInfo", device, [&](FakeGpus&, FakeGpu& gpu) {
    memory->total = static_cast<unsigned long long>(gpu.total_bytes);
    memory->used = static_cast<unsigned long long>(gpu.used_bytes);
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
  });
}
EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int* major, int* minor) {
  return Ask("nvmlDeviceGetCudaComputeCapability", device, [&](FakeGpus&, FakeGpu& gpu) {
    *major = gpu.capability / 10;
    *minor = gpu.capability % 10;
    return NVML_SUCCESS;
  });
}
EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t* pci) {
  return Ask("nvmlDeviceGetPciInfo_v3", device, [&](FakeGpus&, FakeGpu& gpu) {
    SpellBus(gpu, pci);
    return NVML_SUCCESS;
  });
}
EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int* count,
                                                            nvmlProcessInfo_t* processes) {
  return Ask("nvmlDeviceGetComputeRunningProcesses_v3", device, [&](FakeGpus&, FakeGpu& gpu) {
    const bool fits = gpu.processes.size() <= *count;
    *count = static_cast<unsigned int>(gpu.processes.size());
    if (!fits) return NVML_ERROR_INSUFFICIENT_SIZE;
    for (size_t i = 0; i < gpu.processes.size(); ++i) {
      processes[i].pid = static_cast<unsigned int>(gpu.processes[i].first);
      processes[i].usedGpuMemory = static_cast<unsigned long long>(gpu.processes[i].second);
    }
    return NVML_SUCCESS;
  });
}
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, int* up) {
  return Ask("nvmlDeviceGetNvLinkState", device, [&](FakeGpus&, FakeGpu& gpu) {
    *up = link < gpu.linked.size() + gpu.switches ? 1 : 0;
    return NVML_SUCCESS;
  });
}
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link, int* type) {
  return Ask("nvmlDeviceGetNvLinkRemoteDeviceType", device, [&](FakeGpus&, FakeGpu& gpu) {
    *type = link < gpu.linked.size() ? NVML_NVLINK_DEVICE_TYPE_GPU : NVML_NVLINK_DEVICE_TYPE_SWITCH;
    return NVML_SUCCESS;
  });
}
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link,
                                                        nvmlPciInfo_t* pci) {
  return Ask("nvmlDeviceGetNvLinkRemotePciInfo_v2", device, [&](FakeGpus& script, FakeGpu& gpu) {
    if (link >= gpu.linked.size()) return NVML_ERROR_NOT_SUPPORTED;
    SpellBus(*script.Find(gpu.linked[link]), pci);
    return NVML_SUCCESS;
  });
}

}  // extern "C"
