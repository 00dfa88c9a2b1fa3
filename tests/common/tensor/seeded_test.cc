#include "common/tensor/seeded.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <vector>

namespace seqpar {
namespace {

std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  std::array<uint32_t, 4> out;
  Philox4x32(counter.data(), key.data(), out.data());
  return out;
}

TEST(Philox, KnownAnswersOfItsAuthors) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Fnv1a64, KnownAnswers) {
  EXPECT_EQ(Fnv1a64(""), 0xcbf29ce484222325u);
  EXPECT_EQ(Fnv1a64("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(Fnv1a64("foobar"), 0x85944171f73967e8u);
}

std::vector<float> Values(uint64_t seed, const std::string& name, double variance, int64_t begin, int64_t n) {
  std::vector<float> out(static_cast<size_t>(n));
  SeededUniform(seed, name, variance, begin, n, out.data());
  return out;
}

// Made by an independent implementation. These never change: results of jobs with a seed depend on them.
TEST(SeededUniform, GoldenValues) {
  const struct {
    uint64_t seed;
    const char* name;
    double variance;
    int64_t index;
    uint32_t bits;
  } cases[] = {
      {0x0u, "hidden_states", 1.0, 0, 0xbee470fe},
      {0x0u, "hidden_states", 1.0, 1, 0x3e6added},
      {0x0u, "hidden_states", 1.0, 2, 0xbd3a2b54},
      {0x0u, "hidden_states", 1.0, 3, 0x3f9a37a8},
      {0x0u, "hidden_states", 1.0, 4, 0xbf497ef0},
      {0x2au, "model.layers.0.self_attn.q_proj.weight", 0.000244140625, 12345, 0xbb4896c3},
      {0xffffffffffffffffu, "grad_output", 1.0, 1099511627779, 0xbf05632e},
      {0x700000009u, "", 0.5, 17179869185, 0xbeaee86c},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(std::bit_cast<uint32_t>(Values(c.seed, c.name, c.variance, c.index, 1)[0]), c.bits)
        << c.name << " " << c.index;
  }
}

TEST(SeededUniform, ASliceDoesNotDependOnWhereItBegins) {
  const std::vector<float> whole = Values(7, "w", 1, 0, 64);
  for (int64_t begin = 0; begin < 64; ++begin) {
    for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{5}, 64 - begin}) {
      if (begin + n > 64) continue;
      const std::vector<float> slice = Values(7, "w", 1, begin, n);
      ASSERT_TRUE(std::equal(slice.begin(), slice.end(), whole.begin() + begin)) << begin << " " << n;
    }
  }
  // Across the place where the counter's low word overflows.
  const int64_t wrap = int64_t{4} << 32;
  const std::vector<float> across = Values(7, "w", 1, wrap - 6, 12);
  EXPECT_EQ(Values(7, "w", 1, wrap, 6), std::vector<float>(across.begin() + 6, across.end()));
  EXPECT_NE(Values(7, "w", 1, wrap, 6), Values(7, "w", 1, 0, 6));
}

TEST(SeededUniform, SeedsAndNamesDiffer) {
  const std::vector<float> base = Values(1, "a", 1, 0, 8);
  EXPECT_NE(base, Values(2, "a", 1, 0, 8));
  EXPECT_NE(base, Values(1 + (uint64_t{1} << 32), "a", 1, 0, 8));
  EXPECT_NE(base, Values(1, "b", 1, 0, 8));
  EXPECT_EQ(base, Values(1, "a", 1, 0, 8));
}

TEST(SeededUniform, HasTheVarianceRangeAndMeanAskedFor) {
  for (double variance : {1.0, 1.0 / 64}) {
    const int64_t n = 1 << 18;
    const std::vector<float> values = Values(123, "stats", variance, 0, n);
    const double bound = std::sqrt(3 * variance);
    double sum = 0, squares = 0, lagged = 0, low = 0, high = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const double v = values[i];
      ASSERT_GE(v, -static_cast<double>(static_cast<float>(bound)));
      ASSERT_LT(v, bound);
      sum += v;
      squares += v * v;
      if (i > 0) lagged += v * static_cast<double>(values[i - 1]);
      low = std::min(low, v);
      high = std::max(high, v);
    }
    // Five standard errors of each estimate.
    const double root_n = std::sqrt(static_cast<double>(n));
    EXPECT_NEAR(sum / n, 0, 5 * std::sqrt(variance) / root_n);
    EXPECT_NEAR(squares / n, variance, 5 * variance * std::sqrt(0.8) / root_n);
    EXPECT_NEAR(lagged / n, 0, 5 * variance / root_n);
    EXPECT_LT(low, -0.9999 * bound);
    EXPECT_GT(high, 0.9999 * bound);
  }
  for (float v : Values(1, "none", 0, 0, 9)) EXPECT_EQ(v, 0);
}

}  // namespace
}  // namespace seqpar
