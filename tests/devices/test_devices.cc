#include "tests/devices/test_devices.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "tests/devices/mirror_device.h"
#include "worker/backend/cuda_plugin.h"
#include "worker/device/cpu/cpu_device.h"
#include "worker/device/cpu/simd.h"

namespace seqpar {
namespace {

constexpr char kCuda[] = "cuda", kCudaDeterministic[] = "cuda_deterministic";

bool HasGpu() {
  static const bool has = [] {
    const auto plugin = OpenCudaPlugin();
    if (!plugin.ok()) return false;
    const auto gpus = (*plugin)->list();
    return gpus.ok() && !gpus->empty();
  }();
  return has;
}

// The GPU is shared by the devices of a process: a context costs a second, and every test makes devices.
absl::StatusOr<std::shared_ptr<Device>> SharedGpu(bool deterministic) {
  const auto make = [](bool fixed) {
    BackendConfig config;
    config.kind = kCuda;
    config.deterministic = fixed;
    return new absl::StatusOr<std::unique_ptr<RankBackend>>(MakeCudaBackend(config));
  };
  static const auto* const free_order = make(false);
  static const auto* const fixed_order = make(true);
  const auto& made = deterministic ? *fixed_order : *free_order;
  if (!made.ok()) return made.status();
  return std::shared_ptr<Device>(made->get()->device(), [](Device*) {});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeTestDevice(const std::string& kernel, int threads) {
  if (!IsGpuKernel(kernel)) return MakeCpuDevice({threads, 0, kernel, /*poison=*/true});
  SEQPAR_ASSIGN_OR_RETURN(std::shared_ptr<Device> gpu, SharedGpu(kernel == kCudaDeterministic));
  return MakeMirrorDevice(std::move(gpu), kernel);
}

std::vector<std::string> TestKernels() {
  std::vector<std::string> kernels = cpu::SimdNames();
  kernels.push_back("scalar");
  if (HasGpu()) kernels.insert(kernels.end(), {kCuda, kCudaDeterministic});
  const char* wanted = std::getenv("SEQPAR_TEST_KERNELS");
  if (wanted == nullptr || *wanted == '\0') return kernels;
  const std::vector<std::string> names = absl::StrSplit(wanted, ',');
  for (const std::string& name : names) {
    SEQPAR_CHECK(std::find(kernels.begin(), kernels.end(), name) != kernels.end());
  }
  return names;
}

std::string DefaultTestKernel() {
  const char* kernel = std::getenv("SEQPAR_TEST_KERNEL");
  return kernel != nullptr && *kernel != '\0' ? kernel : "auto";
}

}  // namespace seqpar
