#include "coordinator/engine/watchers.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace seqpar {
namespace {

class Seen : public Watcher {
 public:
  void Offer(const v1::Job& job) override { revisions.push_back(job.revision()); }
  void End(const absl::Status& status) override {
    ended = true;
    end = status;
  }
  absl::Status Standing() const override { return standing; }

  absl::Status standing, end;
  std::vector<int64_t> revisions;
  bool ended = false;
};

v1::Job Job(int64_t revision) {
  v1::Job job;
  job.set_id("j");
  job.set_revision(revision);
  return job;
}

TEST(Watchers, EachSeesEachStateUntilTheLast) {
  Watchers watchers;
  const auto early = std::make_shared<Seen>(), late = std::make_shared<Seen>();
  EXPECT_FALSE(watchers.Any("j"));
  watchers.Add("j", early);
  EXPECT_TRUE(watchers.Any("j"));
  watchers.Publish(Job(1), false);
  watchers.Add("j", late);
  watchers.Publish(Job(2), true);
  EXPECT_EQ(early->revisions, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(late->revisions, (std::vector<int64_t>{2}));
  EXPECT_TRUE(early->ended && late->ended);
  EXPECT_FALSE(watchers.Any("j"));
}

// Counts the pieces of memory that it gave and did not get back.
template <typename T>
struct CountingAllocator {
  using value_type = T;
  explicit CountingAllocator(int* given) : given(given) {}
  template <typename U>
  explicit CountingAllocator(const CountingAllocator<U>& other) : given(other.given) {}
  T* allocate(size_t n) {
    ++*given;
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* data, size_t n) {
    --*given;
    std::allocator<T>().deallocate(data, n);
  }
  template <typename U>
  bool operator==(const CountingAllocator<U>& other) const {
    return given == other.given;
  }
  int* given;
};

TEST(Watchers, ThoseThatLeftAreForgottenWhenAnotherComes) {
  int given = 0;
  Watchers watchers;
  const auto stays = std::make_shared<Seen>();
  watchers.Add("j", stays);
  for (int i = 0; i < 100; ++i) {
    watchers.Add("j", std::allocate_shared<Seen>(CountingAllocator<Seen>(&given)));
  }
  EXPECT_LE(given, 1) << "a job that waits for days would gather them";
  watchers.Publish(Job(1), false);
  EXPECT_EQ(given, 0);
  EXPECT_EQ(stays->revisions.size(), 1u);
}

TEST(Watchers, ThoseWhoMayNotWatchAnyMoreAreEndedAndSeeNothingMore) {
  Watchers watchers;
  const auto may = std::make_shared<Seen>(), may_not = std::make_shared<Seen>();
  watchers.Add("j", may);
  watchers.Add("j", may_not);
  watchers.Add("k", may_not);
  watchers.EndLapsed();
  EXPECT_FALSE(may->ended || may_not->ended);
  may_not->standing = absl::UnauthenticatedError("expired");
  watchers.EndLapsed();
  watchers.Publish(Job(1), false);
  EXPECT_EQ(may_not->end, may_not->standing);
  EXPECT_TRUE(may_not->revisions.empty());
  EXPECT_FALSE(watchers.Any("k"));
  EXPECT_EQ(may->revisions.size(), 1u);
  EXPECT_FALSE(may->ended);
}

}  // namespace
}  // namespace seqpar
