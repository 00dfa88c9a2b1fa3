#include "common/tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

float FromBits(uint32_t bits) { return std::bit_cast<float>(bits); }
uint32_t Bits(float value) { return std::bit_cast<uint32_t>(value); }

TEST(DTypeNames, MatchJobFilesAndSafetensors) {
  EXPECT_STREQ(JobName(DType::kF32), "float32");
  EXPECT_STREQ(JobName(DType::kBF16), "bfloat16");
  for (DType t : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
    const absl::StatusOr<DType> parsed = ParseSafetensorsDType(SafetensorsName(t));
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, t);
  }
  EXPECT_EQ(ReasonOf(ParseSafetensorsDType("I64").status()), reason::kInvalidArgument);
  EXPECT_FALSE(ParseSafetensorsDType("f32").ok());
}

TEST(BF16, EveryBitPatternSurvivesTheRoundTrip) {
  for (uint32_t b = 0; b <= 0xffff; ++b) {
    const BF16 value{static_cast<uint16_t>(b)};
    const float wide = ToFloat(value);
    if (std::isnan(wide)) {
      EXPECT_EQ(ToBF16(wide).bits, b | 0x40);  // quiet
      EXPECT_TRUE(std::isnan(ToFloat(ToBF16(wide))));
    } else {
      ASSERT_EQ(ToBF16(wide).bits, b);
    }
  }
}

TEST(BF16, RoundsToNearestEven) {
  EXPECT_EQ(ToBF16(FromBits(0x3f800000)).bits, 0x3f80);
  EXPECT_EQ(ToBF16(FromBits(0x3f807fff)).bits, 0x3f80);  // just below the middle
  EXPECT_EQ(ToBF16(FromBits(0x3f808000)).bits, 0x3f80);  // the middle, to even
  EXPECT_EQ(ToBF16(FromBits(0x3f808001)).bits, 0x3f81);
  EXPECT_EQ(ToBF16(FromBits(0x3f818000)).bits, 0x3f82);  // the middle, to even
  EXPECT_EQ(ToBF16(FromBits(0x3fffffff)).bits, 0x4000);  // carry into the exponent
  EXPECT_EQ(ToBF16(FromBits(0xbf818000)).bits, 0xbf82);
}

TEST(BF16, SpecialValues) {
  EXPECT_EQ(ToBF16(kInf).bits, 0x7f80);
  EXPECT_EQ(ToBF16(-kInf).bits, 0xff80);
  EXPECT_EQ(ToBF16(std::numeric_limits<float>::max()).bits, 0x7f80);  // rounds past the largest
  EXPECT_EQ(ToBF16(FromBits(0x7f7f7fff)).bits, 0x7f7f);
  EXPECT_EQ(ToBF16(-0.0f).bits, 0x8000);
  EXPECT_TRUE(std::isnan(ToFloat(ToBF16(FromBits(0x7f800001)))));  // its payload is all in the lost half
  EXPECT_TRUE(std::isnan(ToFloat(ToBF16(FromBits(0xffffffff)))));
  EXPECT_EQ(ToBF16(FromBits(0x00008001)).bits, 0x0001);  // denormals are kept
  EXPECT_EQ(ToBF16(FromBits(0x00008000)).bits, 0x0000);
  EXPECT_EQ(ToBF16(FromBits(0x007fffff)).bits, 0x0080);  // up to the smallest normal
}

// The value of a binary16 pattern by its definition.
double HalfByDefinition(uint32_t bits) {
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> 10 & 0x1f);
  const double mantissa = bits & 0x3ff;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  if (exponent == 31) return mantissa == 0 ? sign * static_cast<double>(kInf) : std::nan("");
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(F16, EveryBitPatternIsWhatTheDefinitionSays) {
  for (uint32_t b = 0; b <= 0xffff; ++b) {
    const F16 half{static_cast<uint16_t>(b)};
    const float wide = ToFloat(half);
    const double expected = HalfByDefinition(b);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(wide)) << b;
      EXPECT_EQ(ToF16(wide).bits, b | 0x200) << b;
    } else {
      ASSERT_EQ(static_cast<double>(wide), expected) << b;
      ASSERT_EQ(std::signbit(wide), (b & 0x8000) != 0) << b;
      ASSERT_EQ(ToF16(wide).bits, b);
    }
  }
}

TEST(F16, RoundsToNearestEvenEverywhere) {
  // Between each two neighbours: just below the middle, the middle, just above it.
  for (uint32_t b = 0; b < 0x7c00; ++b) {
    const double low = HalfByDefinition(b);
    const double high = b == 0x7bff ? 65536.0 : HalfByDefinition(b + 1);
    const float middle = static_cast<float>((low + high) / 2);  // exact
    const uint32_t even = b % 2 == 0 ? b : b + 1;
    ASSERT_EQ(ToF16(middle).bits, even) << b;
    ASSERT_EQ(ToF16(std::nextafter(middle, -kInf)).bits, b) << b;
    ASSERT_EQ(ToF16(std::nextafter(middle, kInf)).bits, b + 1) << b;
    ASSERT_EQ(ToF16(-middle).bits, even | 0x8000) << b;
  }
  EXPECT_EQ(ToF16(1e30f).bits, 0x7c00);
  EXPECT_EQ(ToF16(-kInf).bits, 0xfc00);
  EXPECT_EQ(ToF16(FromBits(1)).bits, 0);
}

template <typename To, typename From>
std::vector<To> Convert(const std::vector<From>& from, DType from_type, DType to_type) {
  std::vector<To> to(from.size());
  ConvertElements(from.data(), from_type, to.data(), to_type, static_cast<int64_t>(from.size()));
  return to;
}

TEST(ConvertElements, GoesBetweenAllTypes) {
  const std::vector<double> exact = {0, 1, -2.5, 0.25, 96, -128, static_cast<double>(kInf)};
  const DType types[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kF64};
  for (DType a : types) {
    for (DType b : types) {
      std::string in_a(exact.size() * static_cast<size_t>(SizeOf(a)), '\0');
      std::string in_b(exact.size() * static_cast<size_t>(SizeOf(b)), '\0');
      std::vector<double> back(exact.size());
      const int64_t n = static_cast<int64_t>(exact.size());
      ConvertElements(exact.data(), DType::kF64, in_a.data(), a, n);
      ConvertElements(in_a.data(), a, in_b.data(), b, n);
      ConvertElements(in_b.data(), b, back.data(), DType::kF64, n);
      EXPECT_EQ(back, exact) << JobName(a) << " to " << JobName(b);
    }
  }
}

TEST(ConvertElements, RoundsFloat64Once) {
  // By way of a rounded float32 these would land on the middle and then on the wrong side.
  const double above = 1 + 0x1p-8 + 0x1p-40;  // just above the middle of two bfloat16
  const double below = 1 + 3 * 0x1p-8 - 0x1p-40;
  EXPECT_EQ(Convert<uint16_t>(std::vector<double>{above, below, -above}, DType::kF64, DType::kBF16),
            (std::vector<uint16_t>{0x3f81, 0x3f81, 0xbf81}));
  const double half_above = 1 + 0x1p-11 + 0x1p-40;
  const double half_below = 1 + 3 * 0x1p-11 - 0x1p-40;
  EXPECT_EQ(Convert<uint16_t>(std::vector<double>{half_above, half_below}, DType::kF64, DType::kF16),
            (std::vector<uint16_t>{0x3c01, 0x3c01}));
}

TEST(ConvertElements, Float64ExtremesBecomeInfinityZeroAndNaN) {
  const std::vector<double> from = {1e300, -1e300, 1e-300, -1e-300, std::nan("")};
  for (DType to : {DType::kF32, DType::kBF16, DType::kF16}) {
    std::string narrow(from.size() * 4, '\0');
    std::vector<double> back(from.size());
    ConvertElements(from.data(), DType::kF64, narrow.data(), to, 5);
    ConvertElements(narrow.data(), to, back.data(), DType::kF64, 5);
    EXPECT_EQ(back[0], kInf);
    EXPECT_EQ(back[1], -kInf);
    EXPECT_EQ(back[2], 0);
    EXPECT_TRUE(std::signbit(back[3]));
    EXPECT_EQ(back[3], 0);
    EXPECT_TRUE(std::isnan(back[4]));
  }
}

TEST(ConvertElements, TakesUnalignedDataAndCopiesEqualTypesBitForBit) {
  std::vector<float> values = {1.5f, FromBits(0x7f800001), -0.0f};
  std::string raw(1 + values.size() * 4, '\0');
  ConvertElements(values.data(), DType::kF32, raw.data() + 1, DType::kF32, 3);
  std::vector<float> back(3);
  ConvertElements(raw.data() + 1, DType::kF32, back.data(), DType::kF32, 3);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(Bits(back[i]), Bits(values[i]));
  std::vector<double> wide(1);
  ConvertElements(raw.data() + 1, DType::kF32, wide.data(), DType::kF64, 1);
  EXPECT_EQ(wide[0], 1.5);
  ConvertElements(nullptr, DType::kF32, nullptr, DType::kF32, 0);
}

}  // namespace
}  // namespace seqpar
