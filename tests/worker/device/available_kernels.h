// The sets of kernels that tests of the CPU device run over: every dispatch level that this machine has.
#ifndef SEQPAR_TESTS_WORKER_DEVICE_AVAILABLE_KERNELS_H_
#define SEQPAR_TESTS_WORKER_DEVICE_AVAILABLE_KERNELS_H_

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "common/base/check.h"
#include "worker/device/cpu/simd.h"

namespace seqpar {

// Names for CpuDeviceConfig::kernel: the vector instruction sets, widest first, and "scalar". With
// SEQPAR_TEST_KERNELS=AVX2,scalar only those, each of which must be there.
inline std::vector<std::string> AvailableKernels() {
  std::vector<std::string> kernels = cpu::SimdNames();
  kernels.push_back("scalar");
  const char* chosen = std::getenv("SEQPAR_TEST_KERNELS");
  if (chosen == nullptr) return kernels;
  const std::vector<std::string> names = absl::StrSplit(chosen, ',');
  for (const std::string& name : names) {
    SEQPAR_CHECK(std::find(kernels.begin(), kernels.end(), name) != kernels.end());
  }
  return names;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_WORKER_DEVICE_AVAILABLE_KERNELS_H_
