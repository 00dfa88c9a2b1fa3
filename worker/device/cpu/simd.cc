#include "worker/device/cpu/simd.h"

#include "worker/device/cpu/simd-dispatch.h"

namespace seqpar::cpu {

std::vector<std::string> SimdNames() {
  std::vector<std::string> names;
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    // Highway's own fallback has no vectors: the plain kernels are as good.
    if (target != HWY_SCALAR && target != HWY_EMU128) names.push_back(hwy::TargetName(target));
  }
  return names;
}

}  // namespace seqpar::cpu
