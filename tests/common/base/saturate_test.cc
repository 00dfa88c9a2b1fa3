#include "common/base/saturate.h"

#include <gtest/gtest.h>

#include <limits>

namespace seqpar {
namespace {

using Double = std::numeric_limits<double>;
using Int64 = std::numeric_limits<int64_t>;

TEST(Saturate, SecondsBecomeMicroseconds) {
  EXPECT_EQ(MicrosOf(0), 0);
  EXPECT_EQ(MicrosOf(1.5), 1'500'000);
  EXPECT_EQ(MicrosOf(-2), -2'000'000);
  EXPECT_EQ(MicrosOf(1e12), 1'000'000'000'000'000'000);
}

TEST(Saturate, WhatDoesNotFitIsTheNearestThatDoes) {
  for (const double seconds : {1e13, 1e300, Double::max(), Double::infinity()}) {
    EXPECT_EQ(MicrosOf(seconds), kMicrosMax) << seconds;
    EXPECT_EQ(MicrosOf(-seconds), -kMicrosMax) << seconds;
  }
  EXPECT_EQ(MicrosOf(Double::quiet_NaN()), 0);
  EXPECT_GT(kMicrosMax + kMicrosMax, kMicrosMax) << "two of them still add up";
}

TEST(Saturate, WholeParts) {
  EXPECT_EQ(WholeOf(2.75), 2);
  EXPECT_EQ(WholeOf(-2.75), -2);
  EXPECT_EQ(WholeOf(4e19), kMicrosMax) << "more bytes than 64 bits can count";
  EXPECT_EQ(WholeOf(-Double::infinity()), -kMicrosMax);
  EXPECT_EQ(WholeOf(Double::quiet_NaN()), 0);
}

TEST(Saturate, Milliseconds) {
  EXPECT_EQ(MicrosOfMillis(7), 7000);
  EXPECT_EQ(MicrosOfMillis(-7), -7000);
  EXPECT_EQ(MicrosOfMillis(Int64::max()), kMicrosMax / 1000 * 1000);
  EXPECT_EQ(MicrosOfMillis(Int64::min()), -kMicrosMax / 1000 * 1000);
}

}  // namespace
}  // namespace seqpar
