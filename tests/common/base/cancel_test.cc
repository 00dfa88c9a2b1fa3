#include "common/base/cancel.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace seqpar {
namespace {

TEST(CancelToken, IsOkUntilCancelled) {
  CancelToken token;
  EXPECT_FALSE(token.cancelled());
  EXPECT_TRUE(token.status().ok());
}

TEST(CancelToken, FirstCancelWins) {
  CancelToken token;
  token.Cancel(absl::CancelledError("first"));
  token.Cancel(absl::InternalError("second"));
  EXPECT_TRUE(token.cancelled());
  EXPECT_EQ(token.status(), absl::CancelledError("first"));
}

TEST(CancelToken, CallbacksRunOnceWithTheReason) {
  CancelToken token;
  std::vector<std::string> calls;
  token.OnCancel([&](const absl::Status& why) { calls.push_back("before:" + std::string(why.message())); });
  EXPECT_TRUE(calls.empty());
  token.Cancel(absl::CancelledError("x"));
  token.Cancel(absl::CancelledError("y"));
  token.OnCancel([&](const absl::Status& why) { calls.push_back("after:" + std::string(why.message())); });
  EXPECT_EQ(calls, (std::vector<std::string>{"before:x", "after:x"}));
}

TEST(CancelToken, StatusCanBeAskedForInACallback) {
  CancelToken token;
  absl::Status seen;
  std::thread asker;
  token.OnCancel([&](const absl::Status&) {
    // Another thread asks while the callback runs: it must not wait for the callback.
    asker = std::thread([&] { seen = token.status(); });
    asker.join();
  });
  token.Cancel(absl::AbortedError("peer lost"));
  EXPECT_EQ(seen, absl::AbortedError("peer lost"));
}

TEST(CancelToken, EveryCallbackRunsExactlyOnceInARace) {
  for (int trial = 0; trial < 50; ++trial) {
    CancelToken token;
    std::atomic<int> calls{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 20; ++i) token.OnCancel([&](const absl::Status&) { ++calls; });
      });
    }
    for (int t = 0; t < 2; ++t) {
      threads.emplace_back([&] { token.Cancel(absl::CancelledError("race")); });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(calls.load(), 60);
  }
}

TEST(CancelTokenDeathTest, NeedsAnError) {
  CancelToken token;
  EXPECT_DEATH(token.Cancel(absl::OkStatus()), "check failed");
}

}  // namespace
}  // namespace seqpar
