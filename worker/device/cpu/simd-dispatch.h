// The targets that Highway compiles our kernels for, and choosing among them by name. Included first in each
// file that foreach_target.h compiles once for every target.
#ifndef SEQPAR_WORKER_DEVICE_CPU_SIMD_DISPATCH_H_
#define SEQPAR_WORKER_DEVICE_CPU_SIMD_DISPATCH_H_

// SSSE3 gains nothing over the fallback that a machine without SSE4 would notice; scalable vectors cannot be
// members of structs, which our kernels hold them in.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#include <string>

#include "hwy/targets.h"

namespace seqpar::cpu {

// The target of that name among those compiled and supported, 0 where there is none.
inline int64_t TargetNamed(const std::string& name) {
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if (name == hwy::TargetName(target)) return target;
  }
  return 0;
}

// What `table`, made by HWY_EXPORT of a function that returns a pointer, has for the instruction set `name`;
// nullptr where there is none of it. Not by Highway's process-wide choice: devices in one process may differ.
#define SEQPAR_CHOOSE_SIMD(function, name)                           \
  [&]() -> decltype(HWY_DISPATCH_TABLE(function)[0]()) {             \
    const int64_t seqpar_target = ::seqpar::cpu::TargetNamed(name);  \
    if (seqpar_target == 0) return nullptr;                          \
    hwy::ChosenTarget seqpar_chosen;                                 \
    seqpar_chosen.Update(seqpar_target);                             \
    return HWY_DISPATCH_TABLE(function)[seqpar_chosen.GetIndex()](); \
  }()

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_SIMD_DISPATCH_H_
