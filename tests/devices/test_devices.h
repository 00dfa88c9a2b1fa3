// The devices that tests of kernels, strategies and layers run on, by name: a new one is a line here.
#ifndef SEQPAR_TESTS_DEVICES_TEST_DEVICES_H_
#define SEQPAR_TESTS_DEVICES_TEST_DEVICES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/device/device.h"

namespace seqpar {

// CPU kernels by the name of their instruction set, "scalar", "auto", with memory that nobody has written
// full of NaN; "cuda" is the first GPU, with the test's memory on the host (mirror_device.h),
// "cuda_deterministic" the same with kernels of one order of sums.
absl::StatusOr<std::unique_ptr<Device>> MakeTestDevice(const std::string& kernel, int threads = 1);

inline bool IsGpuKernel(const std::string& kernel) { return kernel.rfind("cuda", 0) == 0; }

// Every name of a kernel that this machine can run but "auto", widest vectors first. With
// SEQPAR_TEST_KERNELS=AVX2,scalar only those, each of which must be there.
std::vector<std::string> TestKernels();

// The kernel of tests that take one: SEQPAR_TEST_KERNEL, else "auto".
std::string DefaultTestKernel();

}  // namespace seqpar

#endif  // SEQPAR_TESTS_DEVICES_TEST_DEVICES_H_
