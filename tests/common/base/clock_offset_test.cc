#include "common/base/clock_offset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <random>

namespace seqpar {
namespace {

constexpr int64_t kOffsetUs = -123'456'789;  // theirs = ours + this

// A round trip that leaves at `sent_us`, with these times on the way and there.
RoundTrip Trip(int64_t sent_us, int64_t out_us, int64_t there_us, int64_t back_us,
               int64_t offset_us = kOffsetUs) {
  RoundTrip trip;
  trip.sent_us = sent_us;
  trip.their_received_us = sent_us + out_us + offset_us;
  trip.their_answered_us = trip.their_received_us + there_us;
  trip.received_us = sent_us + out_us + there_us + back_us;
  return trip;
}

TEST(ClockOffset, IsNotKnownBeforeTheFirstRoundTrip) {
  ClockOffsetEstimator estimator;
  EXPECT_FALSE(estimator.Estimate(5).has_value());
  estimator.Add(Trip(0, 10, 10, 10));
  EXPECT_TRUE(estimator.Estimate(30).has_value());
  estimator.Reset();
  EXPECT_FALSE(estimator.Estimate(30).has_value());
}

TEST(ClockOffset, LeavesOutTimesThatNoClockShows) {
  for (const int64_t wild : {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    ClockOffsetEstimator estimator;
    RoundTrip trip = Trip(1000, 10, 10, 10);
    trip.their_received_us = trip.their_answered_us = wild;
    estimator.Add(trip);
    trip = Trip(1000, 10, 10, 10);
    trip.sent_us = wild;
    estimator.Add(trip);
    EXPECT_FALSE(estimator.Estimate(2000).has_value()) << wild;
  }
}

TEST(ClockOffset, IsExactWhereBothWaysAreEquallyLong) {
  ClockOffsetEstimator estimator;
  estimator.Add(Trip(1000, 250, 40'000, 250));
  const ClockOffset offset = *estimator.Estimate(41'500);
  EXPECT_EQ(offset.offset_ns, kOffsetUs * 1000);
  // Half of the time on the way, and what the readings do not show.
  EXPECT_EQ(offset.bound_ns, 250'000 + 1000);
}

TEST(ClockOffset, IsWithinItsBoundHoweverUnevenTheWaysAre) {
  std::minstd_rand random(7);
  std::uniform_int_distribution<int64_t> ways(0, 20'000);
  for (int run = 0; run < 200; ++run) {
    ClockOffsetEstimator estimator;
    int64_t now_us = 0;
    for (int i = 0; i < 100; ++i) {
      const RoundTrip trip = Trip(now_us, ways(random), ways(random), ways(random));
      estimator.Add(trip);
      now_us = trip.received_us + 1'000'000;
      const ClockOffset offset = *estimator.Estimate(now_us);
      ASSERT_LE(std::llabs(offset.offset_ns - kOffsetUs * 1000), offset.bound_ns) << run << " " << i;
    }
  }
}

TEST(ClockOffset, IsWithinItsBoundWhereTheClocksDriftApart) {
  ClockOffsetEstimator estimator;
  int64_t now_us = 0;
  for (int i = 0; i < 500; ++i) {
    const int64_t offset_us = kOffsetUs + now_us / 10'000;  // 100 parts in a million
    // Now and then a quick one: it stays the best for a while.
    const int64_t way_us = i % 50 == 0 ? 50 : 3000;
    estimator.Add(Trip(now_us, way_us, 10, way_us * 2, offset_us));
    now_us += 1'000'000;
    const ClockOffset offset = *estimator.Estimate(now_us);
    EXPECT_LE(std::llabs(offset.offset_ns - (kOffsetUs * 1000 + now_us / 10)), offset.bound_ns) << i;
  }
}

TEST(ClockOffset, TakesTheQuickestRoundTripUntilItIsTooOld) {
  ClockOffsetEstimator estimator;
  estimator.Add(Trip(0, 100, 0, 100));
  estimator.Add(Trip(1'000'000, 5000, 0, 5000));
  EXPECT_LT(estimator.Estimate(2'000'000)->bound_ns, 500'000);
  // After a minute 100 parts in a million are 6 ms: the slower one of then is the better one now.
  estimator.Add(Trip(60'000'000, 4000, 0, 4000));
  EXPECT_LE(estimator.Estimate(60'008'000)->bound_ns, 4'001'000);
}

TEST(ClockOffset, IgnoresARoundTripThatContradictsItself) {
  ClockOffsetEstimator estimator;
  estimator.Add(Trip(0, 10, -5, 10));   // answered before it came
  estimator.Add(Trip(0, 10, 50, -30));  // longer there than here
  EXPECT_FALSE(estimator.Estimate(100).has_value());
}

}  // namespace
}  // namespace seqpar
