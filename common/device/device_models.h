// What the kinds of devices differ in for those who do not run on them: the planner, the service, reports. A
// new backend is one more line here, beside the one that makes it (worker/backend/backends.cc).
#ifndef SEQPAR_COMMON_DEVICE_DEVICE_MODELS_H_
#define SEQPAR_COMMON_DEVICE_DEVICE_MODELS_H_

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace seqpar {

// What kernels take of a device's memory beside their operands.
enum class KernelMemory {
  kHostWorkspace,  // one block on the heap, as large as the largest kernel needs
                   // (coordinator/planner/memory.cc)
  kGpuScratch,     // common/device/cuda_scratch.h
};

struct DeviceModel {
  const char* kind;  // DeviceSpec::kind, DeviceInfo::kind
  KernelMemory kernel_memory;
  // Some of the host's cores, on which its kernels run: it is told by its threads, judged by their CPU time,
  // and has nothing that it does only once. Else a processor of its own, which is told by its name.
  bool is_host;
};

inline constexpr std::array<DeviceModel, 2> kDeviceModels = {{
    {"cpu", KernelMemory::kHostWorkspace, true},
    {"cuda", KernelMemory::kGpuScratch, false},
}};

// Null where there is no such kind.
constexpr const DeviceModel* FindDeviceModel(std::string_view kind) {
  for (const DeviceModel& model : kDeviceModels) {
    if (kind == model.kind) return &model;
  }
  return nullptr;
}

// Whether devices of this kind are cores of the host; not those of a kind that is not known.
constexpr bool IsHost(std::string_view kind) {
  const DeviceModel* model = FindDeviceModel(kind);
  return model != nullptr && model->is_host;
}

inline std::vector<std::string> DeviceKinds() {
  std::vector<std::string> kinds;
  for (const DeviceModel& model : kDeviceModels) kinds.emplace_back(model.kind);
  return kinds;
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_DEVICE_DEVICE_MODELS_H_
