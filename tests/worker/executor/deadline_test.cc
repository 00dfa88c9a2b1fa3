#include "worker/executor/deadline.h"

#include <gtest/gtest.h>

#include <future>

#include "tests/support/time.h"

namespace seqpar {
namespace {

TEST(DeadlineWatchTest, PassesOnceItsTimeIsOver) {
  FakeClock clock(1'000'000);
  std::promise<void> passed;
  DeadlineWatch watch(&clock, 2'000'000, [&] { passed.set_value(); });
  clock.AdvanceMicros(1'000'000);
  EXPECT_EQ(passed.get_future().wait_for(TestSeconds(30)), std::future_status::ready);
}

TEST(DeadlineWatchTest, AnExtensionMovesItAndAnEarlierOneDoesNot) {
  FakeClock clock(1'000'000);
  std::promise<int64_t> passed;
  DeadlineWatch watch(&clock, 2'000'000, [&] { passed.set_value(clock.BootMicros()); });
  watch.Extend(5'000'000);
  watch.Extend(3'000'000);
  clock.AdvanceMicros(3'500'000);  // 4.5 s: past both the first and the earlier one
  clock.AdvanceMicros(500'000);
  auto at = passed.get_future();
  ASSERT_EQ(at.wait_for(TestSeconds(30)), std::future_status::ready);
  EXPECT_EQ(at.get(), 5'000'000);
}

TEST(DeadlineWatchTest, EndsWithoutPassing) {
  FakeClock clock(1'000'000);
  bool passed = false;
  {
    const DeadlineWatch watch(&clock, 2'000'000, [&] { passed = true; });
  }
  EXPECT_FALSE(passed);
}

}  // namespace
}  // namespace seqpar
