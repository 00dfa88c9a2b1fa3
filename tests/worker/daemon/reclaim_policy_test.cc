#include "worker/daemon/reclaim_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace seqpar {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000, kMiB = int64_t{1} << 20, kIdle = 615 * kMiB;
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
using State = DeviceGate::State;

HeldByDevice Holding(int64_t bytes, std::map<int64_t, int64_t> processes = {}) {
  return {{0, {bytes, std::move(processes)}}, {1, {kIdle, {}}}};
}

class ReclaimPolicyTest : public ::testing::Test {
 protected:
  ReclaimPolicy policy_{{{0, kIdle}, {1, kIdle}}, false};
};

TEST_F(ReclaimPolicyTest, WithoutARankNothingIsLookedAt) {
  EXPECT_EQ(policy_.StateOf(0), State::kOpen);
  EXPECT_EQ(policy_.NextLookUs(), kNever);
  EXPECT_EQ(policy_.Tick(kSecond), kNever);
}

TEST_F(ReclaimPolicyTest, ADeviceIsFreeWithinTheSlackOfItsIdleMemory) {
  policy_.Ended(0, 7, kSecond);
  EXPECT_EQ(policy_.StateOf(0), State::kChecking);
  EXPECT_EQ(policy_.StateOf(1), State::kOpen) << "the other devices go on";
  EXPECT_EQ(policy_.NextLookUs(), kSecond);
  policy_.Looked(kSecond, Holding(kIdle + 65 * kMiB), kSecond + 1);
  EXPECT_EQ(policy_.StateOf(0), State::kChecking);
  EXPECT_EQ(policy_.NextLookUs(), kSecond + 1 + ReclaimPolicy::kAgainUs);
  policy_.Looked(kSecond + 2, Holding(kIdle + 64 * kMiB), kSecond + 3);
  EXPECT_EQ(policy_.StateOf(0), State::kOpen);
  EXPECT_EQ(policy_.NextLookUs(), kNever);
}

TEST_F(ReclaimPolicyTest, ALookFromBeforeTheEndSaysNothing) {
  policy_.Ended(0, 7, kSecond);
  policy_.Looked(kSecond - 1, Holding(kIdle), kSecond + 1);
  EXPECT_EQ(policy_.StateOf(0), State::kChecking);
}

TEST_F(ReclaimPolicyTest, WhatStaysHeldIsSetAsideAndComesBackByItself) {
  policy_.Ended(0, 7, kSecond);
  policy_.Looked(kSecond, Holding(kIdle + 1024 * kMiB), 2 * kSecond);
  EXPECT_EQ(policy_.Tick(2 * kSecond), 6 * kSecond);
  EXPECT_EQ(policy_.WhySetAside(0), "");
  policy_.Tick(6 * kSecond - 1);
  EXPECT_EQ(policy_.StateOf(0), State::kChecking);
  policy_.Tick(6 * kSecond);
  EXPECT_EQ(policy_.StateOf(0), State::kSetAside);
  EXPECT_EQ(policy_.WhySetAside(0), "1.00 GiB more than when it was idle are in use");
  EXPECT_EQ(policy_.NextLookUs(), 66 * kSecond);
  policy_.Looked(66 * kSecond, Holding(kIdle + 2048 * kMiB), 67 * kSecond);
  EXPECT_THAT(policy_.WhySetAside(0), HasSubstr("2.00 GiB")) << "as last seen";
  EXPECT_EQ(policy_.NextLookUs(), 127 * kSecond);
  policy_.Looked(127 * kSecond, Holding(kIdle), 127 * kSecond);
  EXPECT_EQ(policy_.StateOf(0), State::kOpen);
}

TEST_F(ReclaimPolicyTest, WhatCannotBeLookedAtIsNotKnownToBeFree) {
  policy_.Ended(0, 7, 0);
  policy_.Looked(0, absl::DeadlineExceededError("NVML: no answer in time"), 3 * kSecond);
  EXPECT_EQ(policy_.StateOf(0), State::kChecking);
  policy_.Looked(4 * kSecond, absl::DeadlineExceededError("NVML: no answer in time"), 7 * kSecond);
  EXPECT_EQ(policy_.StateOf(0), State::kSetAside);
  EXPECT_EQ(policy_.WhySetAside(0), "its memory cannot be looked at: NVML: no answer in time");
  policy_.Looked(67 * kSecond, HeldByDevice{}, 67 * kSecond);
  EXPECT_EQ(policy_.WhySetAside(0), "the driver does not show it") << "fallen off the bus";
  policy_.Looked(127 * kSecond, Holding(kIdle), 127 * kSecond);
  EXPECT_EQ(policy_.StateOf(0), State::kOpen);
}

TEST_F(ReclaimPolicyTest, AFailedLookIsTheReasonOfWhatEndedMeanwhileToo) {
  policy_.Ended(0, 7, 0);
  policy_.Ended(1, 8, kSecond);
  policy_.Looked(0, absl::DeadlineExceededError("NVML: no answer in time"), 4 * kSecond);
  EXPECT_EQ(policy_.NextLookUs(), kSecond) << "its own look is due";
  policy_.Tick(6 * kSecond);
  EXPECT_EQ(policy_.WhySetAside(1), "its memory cannot be looked at: NVML: no answer in time");
}

TEST_F(ReclaimPolicyTest, ADeadProcessThatHoldsMemoryIsNamed) {
  policy_.Ended(0, 7, 0);
  policy_.Looked(0, Holding(kIdle, {{7, 512 * kMiB}}), kSecond);
  policy_.Tick(5 * kSecond);
  EXPECT_EQ(policy_.WhySetAside(0), "process 7, which has ended, still holds 512 MiB of it");
}

TEST_F(ReclaimPolicyTest, DevicesWithoutAnIdleFigureAreNeverChecked) {
  policy_.Ended(2, 7, 0);
  EXPECT_EQ(policy_.StateOf(2), State::kOpen);
}

TEST(ReclaimPolicyShared, OnlyWhatOurDeadProcessesHoldCounts) {
  ReclaimPolicy policy({{0, kIdle}}, true);
  policy.Ended(0, 7, 0);
  policy.Looked(0, Holding(kIdle + 9000 * kMiB, {{7, kMiB}, {8, 8999 * kMiB}}), 1);
  EXPECT_EQ(policy.StateOf(0), State::kChecking);
  policy.Looked(2, Holding(kIdle + 9000 * kMiB, {{8, 9000 * kMiB}}), 3);
  EXPECT_EQ(policy.StateOf(0), State::kOpen) << "the rest is somebody else's";
}

TEST(ReclaimPolicyRetry, ItsPauseIsSettable) {
  ReclaimPolicy policy({{0, kIdle}}, false, kSecond);
  policy.Ended(0, 7, 0);
  policy.Tick(5 * kSecond);
  EXPECT_EQ(policy.NextLookUs(), 6 * kSecond);
}

}  // namespace
}  // namespace seqpar
