// The plug-in for GPUs as the tests need it: the GPUs of a script (tests/fake_gpu/script.h), each of which
// computes and communicates as a CPU slot of one thread.
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/version.h"
#include "tests/fake_gpu/script.h"
#include "worker/backend/cpu_ucx.h"
#include "worker/backend/cuda_plugin.h"

namespace seqpar {
namespace {

absl::StatusOr<std::vector<GpuInfo>> List() {
  std::vector<GpuInfo> all;
  for (const FakeGpu& fake : ReadFakeGpus().gpus) {
    GpuInfo gpu;
    gpu.ordinal = static_cast<int>(all.size());
    gpu.name = fake.name;
    gpu.uuid = fake.uuid;
    gpu.compute_capability = fake.capability;
    gpu.memory_bytes = fake.total_bytes;
    gpu.free_bytes = fake.total_bytes - fake.used_bytes;
    gpu.pci_bus_id = fake.bus_id;
    all.push_back(gpu);
  }
  return all;
}

absl::StatusOr<std::unique_ptr<RankBackend>> Make(const BackendConfig& config) {
  const FakeGpus gpus = ReadFakeGpus();
  const std::string name = absl::StrCat("device-", config.ordinal);
  if (gpus.failing.count(name) != 0) {
    return absl::UnavailableError(absl::StrCat("GPU ", config.ordinal, ": error ", gpus.failing.at(name)));
  }
  while (gpus.hanging.count(name) != 0) pause();
  BackendConfig slot = config;
  slot.kind = "cpu";
  slot.threads = 1;
  return MakeCpuUcxBackend(slot);
}

}  // namespace
}  // namespace seqpar

extern "C" __attribute__((visibility("default")))
const seqpar::CudaPlugin seqpar_cuda_plugin = {seqpar::kVersion, seqpar::List, seqpar::Make};
