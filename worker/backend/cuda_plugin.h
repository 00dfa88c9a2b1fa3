// GPUs over NCCL, by way of a plug-in library that is opened only where a GPU is asked for: this program
// starts on machines that have neither CUDA nor a driver.
//
// The plug-in is built with the same compiler and the same headers as the program, and carries the version of
// both: another one is refused. It is looked for in SEQPAR_CUDA_PLUGIN, beside the program, and in
// ../lib/seqpar.
#ifndef SEQPAR_WORKER_BACKEND_CUDA_PLUGIN_H_
#define SEQPAR_WORKER_BACKEND_CUDA_PLUGIN_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"

namespace seqpar {

struct GpuInfo {
  int ordinal = 0;
  std::string name;
  std::string uuid;            // "GPU-..." as NVML and dcgm-exporter spell it
  int compute_capability = 0;  // 90 is 9.0
  int64_t memory_bytes = 0;
  int64_t free_bytes = 0;
  std::string pci_bus_id;
};

// What the plug-in exports, under the name kCudaPluginSymbol.
struct CudaPlugin {
  const char* version;
  // UNAVAILABLE with what is missing: driver (or one too old, with the version needed), GPU, architecture.
  absl::StatusOr<std::vector<GpuInfo>> (*list)();
  absl::StatusOr<std::unique_ptr<RankBackend>> (*make)(const BackendConfig& config);
};
inline constexpr char kCudaPluginSymbol[] = "seqpar_cuda_plugin";

// Opened once a process; UNAVAILABLE says what could not be found or loaded. Thread-safe.
absl::StatusOr<const CudaPlugin*> OpenCudaPlugin();

absl::StatusOr<std::unique_ptr<RankBackend>> MakeCudaBackend(const BackendConfig& config);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_BACKEND_CUDA_PLUGIN_H_
