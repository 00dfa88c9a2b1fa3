#include "common/job/cluster.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

DeviceRates Measured() {
  DeviceRates rates{100, 80, 60, 40, 200};
  rates.operation_seconds = 1e-6;
  rates.attention = {{64, 80, 60, 1, 2, 3, 4}, {128, 100, 90, 3, 4, 5, 6}};
  return rates;
}

TEST(AttentionRatesAt, LiesBetweenWhatWasMeasured) {
  const DeviceRates rates = Measured();
  EXPECT_EQ(AttentionRatesAt(rates, 64).forward_flops, 80);
  EXPECT_EQ(AttentionRatesAt(rates, 128).backward_edge, 6);
  const AttentionRates between = AttentionRatesAt(rates, 96);
  EXPECT_DOUBLE_EQ(between.forward_flops, 90);
  EXPECT_DOUBLE_EQ(between.backward_flops, 75);
  EXPECT_DOUBLE_EQ(between.forward_row, 2);
  EXPECT_EQ(AttentionRatesAt(rates, 8).forward_flops, 80) << "the nearest";
  EXPECT_EQ(AttentionRatesAt(rates, 512).forward_flops, 100);
}

TEST(AttentionRatesAt, TakesThePlainRatesWhereNothingWasMeasured) {
  DeviceRates rates = Measured();
  rates.attention.clear();
  const AttentionRates plain = AttentionRatesAt(rates, 64);
  EXPECT_EQ(plain.forward_flops, 80);
  EXPECT_EQ(plain.backward_flops, 60);
  EXPECT_EQ(plain.forward_row, 0);
  EXPECT_EQ(plain.backward_edge, 0);
}

TEST(DeviceRates, ScaledIsFasterInRatesAndTimes) {
  const DeviceRates twice = Scaled(Measured(), 2);
  EXPECT_EQ(twice.gemm_flops, 200);
  EXPECT_EQ(twice.operation_seconds, 0.5e-6);
  EXPECT_EQ(twice.attention[0].forward_flops, 160);
  EXPECT_EQ(twice.attention[0].forward_row, 0.5);
  EXPECT_EQ(twice.peak_flops, 200);
  EXPECT_EQ(twice.seeded_values, 0) << "what is not known stays so";
}

TEST(DeviceRates, Float32HasItsOwnWhereTheyWereMeasured) {
  DeviceRates rates = Measured();
  EXPECT_EQ(RatesFor(rates, DType::kF32).gemm_flops, 100);
  EXPECT_EQ(AttentionRatesAt(RatesFor(rates, DType::kF32), 64).forward_flops, 80);
  rates.gemm_input_gradient_flops = 90;
  rates.float32_gemm_flops = 10;
  rates.float32_attention_forward_flops = 4;
  rates.float32_attention_backward_flops = 3;
  const DeviceRates single = RatesFor(rates, DType::kF32);
  EXPECT_EQ(single.gemm_flops, 10);
  EXPECT_EQ(single.gemm_input_gradient_flops, 0) << "as forward";
  EXPECT_EQ(AttentionRatesAt(single, 64).forward_flops, 4);
  EXPECT_EQ(AttentionRatesAt(single, 64).backward_flops, 3);
  EXPECT_EQ(RatesFor(rates, DType::kBF16).gemm_flops, 100);
  EXPECT_EQ(AttentionRatesAt(RatesFor(rates, DType::kBF16), 64).forward_flops, 80);
}

TEST(DeviceRates, TheSlowerOfTwo) {
  DeviceRates other = Measured();
  other.gemm_flops = 50;
  other.copy_bytes = 80;
  other.weight_bytes = 7;  // known of one only
  other.operation_seconds = 3e-6;
  other.attention[1].forward_flops = 10;
  other.attention[1].forward_edge = 1;
  const DeviceRates slower = SlowerOf(Measured(), other);
  EXPECT_EQ(slower.gemm_flops, 50);
  EXPECT_EQ(slower.copy_bytes, 40);
  EXPECT_EQ(slower.weight_bytes, 7);
  EXPECT_EQ(slower.operation_seconds, 3e-6);
  EXPECT_EQ(slower.attention[1].forward_flops, 10);
  EXPECT_EQ(slower.attention[1].forward_edge, 5);
}

TEST(DeviceRates, TheMean) {
  DeviceRates other = Measured();
  other.gemm_flops = 50;
  other.attention[0].forward_row = 3;
  const DeviceRates mean = MeanRates({Measured(), other});
  EXPECT_DOUBLE_EQ(mean.gemm_flops, 75);
  EXPECT_DOUBLE_EQ(mean.attention[0].forward_row, 2);
  EXPECT_DOUBLE_EQ(mean.attention[1].backward_flops, 90);
}

}  // namespace
}  // namespace seqpar
