#include "tests/support/spread.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

TEST(SpreadTest, IsOneWhereNothingDiffers) { EXPECT_EQ(SpreadOfBest({2, 2, 2}, {2, 2, 2}), 1); }

TEST(SpreadTest, IsTheSameWhicheverSeriesIsFirst) {
  EXPECT_EQ(SpreadOfBest({1.0, 1.1, 1.3}, {1.2, 1.4, 1.05}), SpreadOfBest({1.0, 1.1, 1.3}, {1.2, 1.4, 1.05}));
  EXPECT_NEAR(SpreadOfBest({1.0, 1.1, 1.3}, {1.2, 1.4, 1.05}),
              SpreadOfBest({1.2, 1.4, 1.05}, {1.0, 1.1, 1.3}), 0.05);
}

TEST(SpreadTest, SeesChanceThatTheBestOfTheSeriesHappenToHide) {
  // Their bests are alike, and yet three runs out of six may all be slow ones.
  EXPECT_NEAR(SpreadOfBest({1, 1.5, 1.5}, {1, 1.5, 1.5}), 1.5, 1e-9);
  // Of many runs, few are slow: none of twenty will have only those.
  const std::vector<double> many = {1, 1.5, 1, 1, 1, 1, 1, 1.5, 1, 1};
  EXPECT_EQ(SpreadOfBest(many, many), 1);
}

TEST(SpreadTest, OneFastMomentIsWorthWhatItIsAboveTheNext) {
  // Whoever has it is ahead by 1.2 at least; it happens every time.
  EXPECT_GE(SpreadOfBest({1, 1.2, 1.2, 1.2}, {1.2, 1.2, 1.2, 1.2}), 1.2);
}

}  // namespace
}  // namespace seqpar
