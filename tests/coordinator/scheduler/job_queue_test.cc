#include "coordinator/scheduler/job_queue.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace seqpar {
namespace {

Turn Of(int sequence, const std::string& tenant = "", int priority = 0) {
  return {priority, sequence, absl::StrCat(sequence), tenant};
}

// "1 2 3": those that passes look at.
std::string Show(const JobQueue& queue) {
  std::string shown;
  for (const Turn& turn : queue.turns()) absl::StrAppend(&shown, shown.empty() ? "" : " ", turn.job);
  return shown;
}

TEST(JobQueue, IsInTheOrderOfTurns) {
  JobQueue queue;
  for (const Turn& turn : {Of(3), Of(1), Of(2, "", 5), Of(1)}) queue.Add(turn);
  EXPECT_EQ(Show(queue), "2 1 3");
  EXPECT_TRUE(queue.IsAmongFirst(Of(3), 3));
  EXPECT_FALSE(queue.IsAmongFirst(Of(3), 2));
  queue.Remove(Of(1));
  EXPECT_EQ(Show(queue), "2 3");
}

TEST(JobQueue, WhoWaitsForNodesIsSetAsideUntilThereAreOthers) {
  JobQueue queue;
  queue.SetNodes("a");
  queue.Add(Of(1));
  queue.Add(Of(2));
  queue.SetAside(Of(1));
  queue.Add(Of(1));  // as its machine does after each event
  queue.SetNodes("a");
  EXPECT_EQ(Show(queue), "2");
  queue.SetNodes("a b");
  EXPECT_EQ(Show(queue), "1 2");
  queue.SetAside(Of(1));
  queue.Remove(Of(1));
  queue.SetNodes("a");
  EXPECT_EQ(Show(queue), "2");
}

TEST(JobQueue, WhoIsHeldBackHoldsBackThoseOfItsTenantBehindIt) {
  JobQueue queue;
  for (const Turn& turn : {Of(1, "search"), Of(2, "vision"), Of(4, "search")}) queue.Add(turn);
  queue.Hold(Of(4, "search"));
  queue.Add(Of(5, "search"));
  queue.Add(Of(6, "vision"));
  queue.Add(Of(3, "search"));  // between two attempts: before those that are held back
  EXPECT_EQ(Show(queue), "1 2 3 6");
  ASSERT_NE(queue.FirstHeld("search"), nullptr);
  EXPECT_EQ(queue.FirstHeld("search")->job, "4");
  EXPECT_EQ(queue.FirstHeld("vision"), nullptr);
  queue.Add(Of(4, "search"));
  EXPECT_EQ(Show(queue), "1 2 3 6");
  EXPECT_FALSE(queue.Release("vision"));
  EXPECT_TRUE(queue.Release("search"));
  EXPECT_EQ(Show(queue), "1 2 3 4 5 6");
  EXPECT_FALSE(queue.Release("search"));
}

TEST(JobQueue, ReleasesSomeAtATime) {
  JobQueue queue;
  const int all = static_cast<int>(JobQueue::kReleased) + 2;
  for (int i = 1; i <= all; ++i) queue.Add(Of(i, "search"));
  for (int i = 1; i <= all; ++i) queue.Hold(Of(i, "search"));
  queue.Remove(Of(1, "search"));
  EXPECT_TRUE(queue.turns().empty());
  EXPECT_TRUE(queue.Release("search"));
  EXPECT_EQ(queue.turns().size(), JobQueue::kReleased);
  EXPECT_EQ(queue.FirstHeld("search")->job, absl::StrCat(all));
  queue.Remove(Of(all, "search"));
  EXPECT_EQ(queue.FirstHeld("search"), nullptr);
}

}  // namespace
}  // namespace seqpar
