// What tests of kernels share: devices of one and of three threads that must agree, matrices and tolerances.
#ifndef SEQPAR_TESTS_WORKER_DEVICE_KERNEL_FIXTURE_H_
#define SEQPAR_TESTS_WORKER_DEVICE_KERNEL_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/devices/test_devices.h"
#include "tests/worker/device/guarded_matrix.h"

namespace seqpar {

using Values = std::vector<double>;

inline double Wave(int stream, int64_t row, int64_t col) {
  return std::sin(0.7 * static_cast<double>(row) + 1.3 * static_cast<double>(col) + stream) + 0.1 * stream;
}

struct Shape {
  int64_t rows, cols, gap;
};

// Runs on devices of one and of three threads and asserts that both give the same bits.
class KernelsTest : public testing::TestWithParam<std::tuple<DType, std::string>> {
 protected:
  KernelsTest() {
    for (int threads : {1, 3}) {
      devices_.push_back(std::move(MakeTestDevice(std::get<std::string>(GetParam()), threads)).value());
    }
  }

  static DType Type() { return std::get<DType>(GetParam()); }
  std::unique_ptr<GuardedMatrix> New(int stream, const Shape& s) { return New(stream, s, Type()); }
  std::unique_ptr<GuardedMatrix> New(int stream, const Shape& s, DType type) {
    return std::make_unique<GuardedMatrix>(type, s.rows, s.cols, s.gap, Guard::kAfter,
                                           [=](int64_t row, int64_t col) { return Wave(stream, row, col); });
  }

  // What `kernel(device, stream, target)` leaves in a matrix like New(target_stream, shape, type).
  template <typename Kernel>
  Values Run(int target_stream, const Shape& shape, DType type, const Kernel& kernel) {
    std::vector<Values> results;
    for (const auto& device : devices_) {
      const auto target = New(target_stream, shape, type);
      const auto stream = device->CreateStream("kernel");
      kernel(*device, *stream, target->matrix());
      EXPECT_TRUE(stream->Synchronize().ok());
      EXPECT_TRUE(target->GapsIntact());
      results.push_back(target->Values());
    }
    EXPECT_EQ(results[0], results[1]) << "threads change the result";
    return results[0];
  }

  // One rounding to storage, or some float32 arithmetic.
  double Tolerance(DType type) const { return type == DType::kBF16 ? 1.0 / 256 : 2e-6; }
  void ExpectNear(const Values& values, const Values& expected, DType type, double slack = 1) {
    ASSERT_EQ(values.size(), expected.size());
    double largest = 1e-30;
    for (double value : expected) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], expected[i],
                  slack * Tolerance(type) * std::max(std::abs(expected[i]), 0.1 * largest))
          << "element " << i;
    }
  }

  std::vector<std::unique_ptr<Device>> devices_;
};

inline const std::vector<Shape> kShapes = {{1, 1, 0},   {1, 7, 2},    {3, 513, 1},
                                           {67, 24, 0}, {130, 65, 3}, {5, 1500, 0}};

// Runs the suite over both storage types and every set of kernels.
#define SEQPAR_INSTANTIATE_KERNEL_TESTS(Suite)                                                        \
  INSTANTIATE_TEST_SUITE_P(                                                                           \
      Types, Suite,                                                                                   \
      testing::Combine(testing::Values(DType::kF32, DType::kBF16), testing::ValuesIn(TestKernels())), \
      [](const auto& info) {                                                                          \
        const bool single = std::get<DType>(info.param) == DType::kF32;                               \
        return absl::StrCat(single ? "F32_" : "BF16_", std::get<std::string>(info.param));            \
      })

}  // namespace seqpar

#endif  // SEQPAR_TESTS_WORKER_DEVICE_KERNEL_FIXTURE_H_
