#include "coordinator/engine/revisions.h"

#include <gtest/gtest.h>

#include <string>

namespace seqpar {
namespace {

constexpr int64_t kNoonUs = 1'700'000'000'000'000;

TEST(Revisions, BeginAboveTheClockAndAboveWhatWasReserved) {
  EXPECT_EQ(Revisions("", kNoonUs).Next(), kNoonUs + 1);
  EXPECT_EQ(Revisions("12", kNoonUs).Next(), kNoonUs + 1);
  EXPECT_EQ(Revisions(std::to_string(kNoonUs + 12), kNoonUs).Next(), kNoonUs + 13);
  EXPECT_EQ(Revisions("7", 0).Next(), 8) << "a machine whose clock starts anew";
  EXPECT_EQ(Revisions("", -5).Next(), 1);
  EXPECT_EQ(Revisions("9223372036854775807", 5).Next(), 6) << "damaged: there is no next one";
}

TEST(Revisions, AreReservedBeforeTheFirstAndThenNowAndThen) {
  Revisions revisions("", 0);
  std::string stored = revisions.Reserve().value();
  int reserved = 0;
  for (int i = 0; i < 10'000'000; ++i) {
    const int64_t revision = revisions.Next();
    if (const auto more = revisions.Reserve()) {
      stored = *more;
      ++reserved;
    }
    // The process ends here, and the clock says nothing: the next start.
    if (i % 1000 == 0) {
      ASSERT_GT(Revisions(stored, 0).Next(), revision);
    }
  }
  EXPECT_GT(reserved, 1);
  EXPECT_LT(reserved, 100) << "not a write for each";
}

}  // namespace
}  // namespace seqpar
