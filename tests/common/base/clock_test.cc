#include "common/base/clock.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

TEST(SystemClock, WallIsAfterThisWasWrittenAndBootNeverGoesBack) {
  const Clock& clock = Clock::System();
  EXPECT_GT(clock.WallMicros(), int64_t{1'700'000'000} * 1'000'000);
  int64_t last = clock.BootMicros();
  EXPECT_GT(last, 0);
  for (int i = 0; i < 1000; ++i) {
    const int64_t now = clock.BootMicros();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(FakeClock, MovesOnlyWhenTold) {
  FakeClock clock(5);
  EXPECT_EQ(clock.WallMicros(), 5);
  clock.AdvanceMicros(10);
  EXPECT_EQ(clock.BootMicros(), 15);
  EXPECT_EQ(clock.WallMicros(), 15);
}

}  // namespace
}  // namespace seqpar
