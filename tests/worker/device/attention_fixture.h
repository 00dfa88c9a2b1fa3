// What tests of the attention kernels share: each case on one kernel against float64 and the plain kernel.
#ifndef SEQPAR_TESTS_WORKER_DEVICE_ATTENTION_FIXTURE_H_
#define SEQPAR_TESTS_WORKER_DEVICE_ATTENTION_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "tests/devices/test_devices.h"
#include "tests/worker/device/attention_case.h"

namespace seqpar {

inline std::unique_ptr<Device> MakeDevice(const std::string& kernel, int threads = 1) {
  auto device = MakeTestDevice(kernel, threads);
  EXPECT_TRUE(device.ok()) << device.status();
  return std::move(device).value();
}

// The rule of docs/formulas.md: err <= 4 err(one device) + 1e-6, where "one device" is the plain kernel. The
// gradients' ones that RunOn starts from cost float32 digits, which the plain kernel pays too. `unit` is what
// the last bit of a score moves a weight by.
inline void ExpectClose(const std::vector<double>& x, const std::vector<double>& plain,
                        const std::vector<double>& oracle, double unit, const std::string& what,
                        const std::vector<double>& sibling = {}) {
  const RelativeError error = ErrorOf(x, oracle, sibling), allowed = ErrorOf(plain, oracle, sibling);
  EXPECT_LE(error.norm, 4 * allowed.norm + 1e-6 + unit) << what;
  EXPECT_LE(error.worst, 4 * allowed.worst + 1e-6 + unit) << what;
}

// `rounding`: what a kernel's own rounding adds to every result but the log-sum-exp. `units`: of the last bit
// of a score; one that works in powers of two rounds scores, their scale and log-sum-exps once more.
inline void ExpectClose(const AttentionResult& x, const AttentionResult& plain, const AttentionResult& oracle,
                        double rounding = 0, double units = 1) {
  // Scores and their log-sum-exp are float32. Among large scores the plain kernel may be exact
  // by luck (it is where two are equal), and one that is not may be off by a unit or two.
  double largest = 0;
  for (const double lse : oracle.lse) {
    if (std::isfinite(lse)) largest = std::max(largest, std::abs(lse));
  }
  const double unit = (largest > 10 ? units * largest * 0x1p-23 : 0) + rounding;
  ExpectClose(x.out, plain.out, oracle.out, unit, "out");
  ExpectClose(x.lse, plain.lse, oracle.lse, 0, "lse");
  ExpectClose(x.dq, plain.dq, oracle.dq, unit, "dq", oracle.dv);
  ExpectClose(x.dk, plain.dk, oracle.dk, unit, "dk", oracle.dv);
  ExpectClose(x.dv, plain.dv, oracle.dv, unit, "dv");
}

// The plain kernel itself, by an absolute bound.
inline void ExpectPlainIsRight(const AttentionResult& plain, const AttentionResult& oracle, double bound) {
  EXPECT_LE(ErrorOf(plain.out, oracle.out).norm, bound);
  EXPECT_LE(ErrorOf(plain.lse, oracle.lse).norm, bound);
  EXPECT_LE(ErrorOf(plain.dq, oracle.dq, oracle.dv).norm, 20 * bound);
  EXPECT_LE(ErrorOf(plain.dk, oracle.dk, oracle.dv).norm, 20 * bound);
  EXPECT_LE(ErrorOf(plain.dv, oracle.dv).norm, 20 * bound);
}

inline void ExpectSameBits(const AttentionResult& a, const AttentionResult& b) {
  EXPECT_EQ(a.out, b.out);
  EXPECT_EQ(a.lse, b.lse);
  EXPECT_EQ(a.dq, b.dq);
  EXPECT_EQ(a.dk, b.dk);
  EXPECT_EQ(a.dv, b.dv);
}

// Tensor cores take probabilities, and gradients of scores, rounded to bfloat16 once: by 2^-9 of each at
// most; cuDNN rounds its results once more. By what the device has run attention on so far.
inline double RoundingOf(const Device& device, const AttentionCase& c) {
  const std::string used = device.attention_use().kernel;
  if (c.dtype != DType::kBF16) return 0;
  if (used.find("cudnn") != std::string::npos) return 3 * 0x1p-9;
  return used.find("fa4") != std::string::npos ? 0x1p-8 : 0;
}

// Every kernel that this machine can run.
class AttentionTest : public testing::TestWithParam<std::string> {
 protected:
  void Check(const AttentionCase& c, const std::vector<int64_t>& cuts = {}, double bound = 1e-5) {
    SCOPED_TRACE(c.ToString());
    const AttentionInputs in(c);
    const AttentionResult oracle = Oracle(c, in);
    const AttentionResult plain = RunOn(*plain_, c, in, oracle, cuts);
    ExpectPlainIsRight(plain, oracle, bound);
    if (GetParam() == "scalar") return;
    const AttentionResult result = RunOn(*device_, c, in, oracle, cuts);
    SCOPED_TRACE("on " + device_->attention_use().kernel);
    const int units = IsGpuKernel(GetParam()) ? 3 : 1;
    ExpectClose(result, plain, oracle, RoundingOf(*device_, c), units);
    if (!cuts.empty()) return;
    SCOPED_TRACE("as a whole");
    const double rounded =
        c.dtype == DType::kBF16 ? 0x1p-8 : 0;  // of a result, once, and of what is added to
    ExpectClose(RunWhole(*device_, c, in, oracle), plain, oracle, RoundingOf(*device_, c) + rounded, units);
  }

  std::unique_ptr<Device> device_ = MakeDevice(GetParam());
  std::unique_ptr<Device> plain_ = MakeDevice("scalar");
};

// Runs the suite over every set of kernels.
#define SEQPAR_INSTANTIATE_ATTENTION_TESTS(Suite)                            \
  INSTANTIATE_TEST_SUITE_P(Kernels, Suite, testing::ValuesIn(TestKernels()), \
                           [](const auto& info) { return info.param; })

}  // namespace seqpar

#endif  // SEQPAR_TESTS_WORKER_DEVICE_ATTENTION_FIXTURE_H_
