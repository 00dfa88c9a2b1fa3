// The table of backends: a new pair is one more line, and one of common/device/device_models.h.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/device/device_models.h"
#include "worker/backend/backend.h"
#include "worker/backend/cpu_ucx.h"
#include "worker/backend/cuda_plugin.h"

namespace seqpar {
namespace {

struct Entry {
  const char* kind;
  absl::StatusOr<std::unique_ptr<RankBackend>> (*make)(const BackendConfig& config);
};

constexpr Entry kBackends[] = {
    {"cpu", MakeCpuUcxBackend},
    {"cuda", MakeCudaBackend},
};

}  // namespace

absl::StatusOr<std::unique_ptr<RankBackend>> MakeRankBackend(const BackendConfig& config) {
  for (const Entry& entry : kBackends) {
    if (config.kind == entry.kind) return entry.make(config);
  }
  return MakeError(
      absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
      absl::StrCat("no devices of kind '", config.kind, "': ", absl::StrJoin(DeviceKinds(), ", ")));
}

}  // namespace seqpar
