#include "worker/daemon/node_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/support/temp_folder.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

class NodeLockTest : public ::testing::Test {
 protected:
  absl::StatusOr<UniqueFd> Lock(const std::string& node, const std::string& coordinator, int wait_ms = 0) {
    return LockNode(folder_ / "state", node, coordinator, wait_ms, stop_.get());
  }

  const TempFolder folder_;
  const UniqueFd stop_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
};

TEST_F(NodeLockTest, IsOneDaemonsOfANodeAndCoordinator) {
  const absl::StatusOr<UniqueFd> first = Lock("a", "head:1");
  ASSERT_TRUE(first.ok() && first->valid()) << first.status();
  const absl::Status second = Lock("a", "head:1").status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.message()),
              HasSubstr(absl::StrCat("another worker runs as a here: pid ", getpid(), " on ")));
  EXPECT_TRUE(Lock("b", "head:1")->valid());
  EXPECT_TRUE(Lock("a", "head:2")->valid()) << "of another cluster";
}

TEST_F(NodeLockTest, WaitsForOneThatIsOnItsWayOut) {
  absl::StatusOr<UniqueFd> first = Lock("a", "head:1");
  std::thread leaves([&] { first->Reset(); });
  const absl::StatusOr<UniqueFd> second =
      Lock("a", "head:1", static_cast<int>(TestSeconds(60).count() * 1000));
  leaves.join();
  EXPECT_TRUE(second.ok() && second->valid()) << second.status();
}

TEST_F(NodeLockTest, WaitsNoLongerOnceItIsToldToStop) {
  const absl::StatusOr<UniqueFd> first = Lock("a", "head:1");
  const uint64_t one = 1;
  ASSERT_EQ(write(stop_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  EXPECT_EQ(Lock("a", "head:1", 1'000'000'000).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(NodeLockTest, AFolderThatCannotBeIsNoReasonNotToStart) {
  const absl::StatusOr<UniqueFd> none = LockNode("/proc/none", "a", "head:1", 0, stop_.get());
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_FALSE(none->valid());
}

}  // namespace
}  // namespace seqpar
