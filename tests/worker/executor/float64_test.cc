#include "worker/executor/float64.h"

#include <gtest/gtest.h>

#include <cmath>

#include "worker/device/cpu/cpu_device.h"

namespace seqpar {
namespace {

TEST(Partial64Test, PartsMergeToTheWholeInAnyOrder) {
  const double scores[] = {0.5, -700, 710, 3, 709.5};
  const float values[][2] = {{1, 2}, {3, 4}, {5, 6}, {7, 8}, {9, 10}};
  Partial64 whole(2), first(2), second(2), empty(2), merged(2);
  for (int i = 0; i < 5; ++i) {
    whole.Add(scores[i], values[i]);
    (i < 2 ? first : second).Add(scores[i], values[i]);
  }
  double packed[4];
  for (const Partial64* part : {&empty, &second, &first}) {
    part->Pack(packed);
    merged.Merge(packed);
  }
  EXPECT_DOUBLE_EQ(merged.LogSumExp(), whole.LogSumExp());
  double want[2], got[2];
  whole.Finish(want);
  merged.Finish(got);
  EXPECT_DOUBLE_EQ(got[0], want[0]);
  EXPECT_DOUBLE_EQ(got[1], want[1]);
  empty.Finish(got);
  EXPECT_EQ(got[0], 0) << "no key was seen";
}

TEST(Rotate64Test, KeepsLengthsAndDependsOnDistancesOnly) {
  double q[] = {1, 2, 3, 4}, k[] = {-1, 0.5, 2, 1}, q2[] = {1, 2, 3, 4}, k2[] = {-1, 0.5, 2, 1};
  Rotate64(q, 4, 10, 10000);
  Rotate64(k, 4, 7, 10000);
  Rotate64(q2, 4, 1'000'003, 10000);
  Rotate64(k2, 4, 1'000'000, 10000);
  EXPECT_NEAR(Dot64(q, q, 4), 30, 1e-12);
  EXPECT_NEAR(Dot64(q, k, 4), Dot64(q2, k2, 4), 1e-9);
}

TEST(Activation64Test, HasTheValuesOfItsDefinition) {
  EXPECT_NEAR(Activation64(MlpKind::kSwiglu, 1, 2), 2 / (1 + std::exp(-1.0)), 1e-15);
  EXPECT_NEAR(Activation64(MlpKind::kGelu, 0, 1), 0.8413447460685429, 1e-15);  // the normal distribution at 1
  EXPECT_NEAR(Activation64(MlpKind::kGeluTanh, 0, 1), 0.8411919906082768, 1e-15);
}

TEST(Linear64Test, MultipliesByTheTransposedWeightInPieces) {
  const auto device = *MakeCpuDevice({});
  const auto stream = device->CreateStream("test");
  const HostCopier copier(device.get(), stream.get());
  constexpr int kOut = 700, kIn = 3;  // more rows than a piece has
  std::vector<float> weight(kOut * kIn), bias(kOut);
  for (int i = 0; i < kOut * kIn; ++i) weight[i] = static_cast<float>(i % 17) - 8;
  for (int i = 0; i < kOut; ++i) bias[i] = static_cast<float>(i);
  Rows64 a(2, kIn);
  for (size_t i = 0; i < a.data.size(); ++i) a.data[i] = 1.0 / (3.0 + static_cast<double>(i));
  const auto got = Linear64(copier, a, Matrix(weight.data(), DType::kF32, kOut, kIn),
                            Matrix(bias.data(), DType::kF32, 1, kOut));
  ASSERT_TRUE(got.ok());
  for (int row = 0; row < 2; ++row) {
    for (int n = 0; n < kOut; ++n) {
      double want = bias[n];
      for (int i = 0; i < kIn; ++i) want += a.Row(row)[i] * weight[n * kIn + i];
      ASSERT_NEAR(got->Row(row)[n], want, 1e-12);
    }
  }
}

}  // namespace
}  // namespace seqpar
