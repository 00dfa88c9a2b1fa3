// The plug-in's door: the only symbol that it exports.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/base/version.h"
#include "worker/backend/cuda_plugin.h"
#include "worker/comm/nccl/nccl_communicator.h"
#include "worker/comm/nccl/nccl_library.h"
#include "worker/device/cuda/cuda_device.h"
#include "worker/device/cuda/cuda_status.h"

namespace seqpar {
namespace {

// Below this no kernel of ours runs: bfloat16 arithmetic begins here.
constexpr int kComputeCapabilityMin = 80;

std::string DriverText(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

// A driver that serves this runtime: any of the same major version, or a newer one.
absl::Status CheckDriver() {
  int driver = 0, runtime = 0;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaDriverGetVersion(&driver), "ask for the driver");
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaRuntimeGetVersion(&runtime), "ask for the runtime");
  if (driver == 0) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kInternal, "there is no NVIDIA driver");
  }
  if (driver / 1000 < runtime / 1000) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                     absl::StrCat("the NVIDIA driver serves CUDA up to ", DriverText(driver), ", ",
                                  DriverText(runtime / 1000 * 1000), " or newer is needed"));
  }
  return absl::OkStatus();
}

std::string UuidText(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    char hex[3];
    std::snprintf(hex, sizeof(hex), "%02x", static_cast<unsigned char>(uuid.bytes[i]));
    text += hex;
  }
  return text;
}

absl::StatusOr<std::vector<GpuInfo>> ListGpus() {
  SEQPAR_RETURN_IF_ERROR(CheckDriver());
  int count = 0;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaGetDeviceCount(&count), "count GPUs");
  std::vector<GpuInfo> all;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    SEQPAR_CUDA_RETURN_IF_ERROR(cudaGetDeviceProperties(&properties, i), "ask for a GPU's properties");
    GpuInfo gpu;
    gpu.ordinal = i;
    gpu.name = properties.name;
    gpu.uuid = UuidText(properties.uuid);
    gpu.compute_capability = properties.major * 10 + properties.minor;
    gpu.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
    char bus_id[32] = "";
    cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), i);
    gpu.pci_bus_id = bus_id;
    size_t free_bytes = 0, total_bytes = 0;
    SEQPAR_CUDA_RETURN_IF_ERROR(cudaSetDevice(i), "select a GPU");
    SEQPAR_CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes), "ask for a GPU's memory");
    gpu.free_bytes = static_cast<int64_t>(free_bytes);
    all.push_back(std::move(gpu));
  }
  return all;
}

class CudaNcclBackend : public RankBackend {
 public:
  CudaNcclBackend(int ordinal, std::unique_ptr<Device> device, const NcclLibrary* nccl)
      : ordinal_(ordinal), device_(std::move(device)), nccl_(nccl) {}

  Device* device() override { return device_.get(); }
  absl::StatusOr<std::string> Blob(int rank) override { return NcclBlob(*nccl_, rank); }
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(int rank, const std::vector<std::string>& blobs,
                                                        std::chrono::milliseconds deadline,
                                                        TrafficCounter* traffic) override {
    return MakeNcclWorld(nccl_, NcclConfig{rank, ordinal_, blobs, deadline}, device_.get(), traffic);
  }
  std::string Describe() const override { return absl::StrCat("NCCL ", nccl_->VersionText()); }

 private:
  const int ordinal_;
  const std::unique_ptr<Device> device_;
  const NcclLibrary* const nccl_;
};

absl::StatusOr<std::unique_ptr<RankBackend>> Make(const BackendConfig& config) {
  SEQPAR_RETURN_IF_ERROR(CheckDriver());
  SEQPAR_ASSIGN_OR_RETURN(const NcclLibrary* nccl, NcclLibrary::Open());
  int capability = 0;
  SEQPAR_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&capability, cudaDevAttrComputeCapabilityMajor, config.ordinal),
      "ask for a GPU");
  if (capability * 10 < kComputeCapabilityMin) {
    return MakeError(absl::StatusCode::kUnavailable, reason::kInternal,
                     absl::StrCat("GPU ", config.ordinal, " has compute capability ", capability,
                                  ".x, 8.0 or newer is needed"));
  }
  SEQPAR_ASSIGN_OR_RETURN(std::unique_ptr<Device> device,
                          MakeCudaDevice({config.ordinal, config.memory_bytes, config.deterministic}));
  return std::unique_ptr<RankBackend>(
      std::make_unique<CudaNcclBackend>(config.ordinal, std::move(device), nccl));
}

}  // namespace
}  // namespace seqpar

extern "C" __attribute__((visibility("default")))
const seqpar::CudaPlugin seqpar_cuda_plugin = {seqpar::kVersion, seqpar::ListGpus, seqpar::Make};
