#include "coordinator/engine/alarms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Alarms, AreTakenOnceInTheirOrder) {
  Alarms alarms;
  EXPECT_EQ(alarms.NextUs(), Alarms::kNever);
  alarms.Set("late", 30);
  alarms.Set("early", 10);
  alarms.Set("between", 20);
  EXPECT_EQ(alarms.NextUs(), 10);
  EXPECT_THAT(alarms.TakeDue(9), IsEmpty());
  EXPECT_THAT(alarms.TakeDue(20), ElementsAre("early", "between"));
  EXPECT_THAT(alarms.TakeDue(20), IsEmpty());
  EXPECT_EQ(alarms.NextUs(), 30);
}

TEST(Alarms, AreOneAName) {
  Alarms alarms;
  alarms.Set("a", 10);
  alarms.Set("a", 30);
  alarms.Set("b", 20);
  alarms.Set("b", Alarms::kNever);
  alarms.Set("c", Alarms::kNever);
  EXPECT_THAT(alarms.TakeDue(29), IsEmpty());
  EXPECT_THAT(alarms.TakeDue(30), ElementsAre("a"));
  EXPECT_EQ(alarms.NextUs(), Alarms::kNever);
  alarms.Set("a", 40);
  EXPECT_THAT(alarms.TakeDue(40), ElementsAre("a"));
}

}  // namespace
}  // namespace seqpar
