// What the engine owes to the store: nothing is seen before it is written, and nothing after it cannot be.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/error_info.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "tests/coordinator/api/engine_fixture.h"

namespace seqpar {
namespace {

TEST_F(EngineTest, AnAttemptIsOnDiskBeforeItsRanksStart) {
  ASSERT_TRUE(engine_.Submit(Record("j-1"), "bytes").ok());
  ASSERT_TRUE(link_->WaitFor(v1::CoordinatorMessage::kStart));
  EXPECT_TRUE(link_->started_on_disk());
}

TEST_F(EngineTest, WhatAnAnsweredHeartbeatCoversIsOnDisk) {
  ASSERT_TRUE(engine_.Submit(Record("j-1"), "bytes").ok());
  ASSERT_TRUE(link_->WaitFor(v1::CoordinatorMessage::kStart));
  v1::WorkerMessage blob, heartbeat;
  *blob.mutable_blob()->mutable_gang() = link_->gang();
  blob.mutable_blob()->set_group("world");
  blob.mutable_blob()->set_data("blob");
  heartbeat.mutable_heartbeat()->set_sequence(1);
  EXPECT_TRUE(engine_.OnMessage("a", 1, blob).ok());
  EXPECT_TRUE(engine_.OnMessage("a", 1, heartbeat).ok());
  ASSERT_TRUE(link_->WaitFor(v1::CoordinatorMessage::kHeartbeat));
  EXPECT_TRUE(link_->blob_on_disk());
}

TEST_F(EngineTest, NothingIsPromisedOnceTheStoreIsGone) {
  ASSERT_TRUE(engine_.Submit(Record("j-1"), "bytes").ok());
  ASSERT_TRUE(link_->WaitFor(v1::CoordinatorMessage::kStart));
  store_.broken = true;
  EXPECT_TRUE(engine_.Health().ok());
  engine_.Cancel("j-1");  // its record cannot be written
  EXPECT_EQ(engine_.Health().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(fatal_, 1);
  EXPECT_EQ(engine_.Submit(Record("j-2"), "bytes").status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, ASubmitThatIsNotStoredIsNotAccepted) {
  store_.broken = true;
  const absl::Status refused = engine_.Submit(Record("j-1"), "bytes").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(engine_.ViewLive("j-1").has_value());
  EXPECT_EQ(fatal_, 1) << "what is on disk is not known any more";
}

TEST_F(EngineTest, AFullDiskRefusesNewJobsAndRecordsTheEndsOfOthers) {
  ASSERT_TRUE(engine_.Submit(Record("j-1"), "bytes").ok());
  ASSERT_TRUE(link_->WaitFor(v1::CoordinatorMessage::kStart));
  store_.full = true;
  const absl::Status refused = engine_.Submit(Record("j-2"), "bytes").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(RetrySecondsOf(refused), 0);
  EXPECT_FALSE(engine_.ViewLive("j-2").has_value());
  engine_.Cancel("j-1");
  EXPECT_TRUE(engine_.Health().ok());
  EXPECT_EQ(fatal_, 0);
  EXPECT_EQ(engine_.Submit(Record("j-3"), "bytes").status().code(), absl::StatusCode::kResourceExhausted);
  store_.full = false;
  clock_.AdvanceMicros(60'000'000);
  // Its thread looks again within its own time.
  absl::Status taken;
  do {
    taken = engine_.Submit(Record("j-4"), "bytes").status();
  } while (absl::IsResourceExhausted(taken));
  EXPECT_TRUE(taken.ok()) << taken;
}

TEST_F(EngineTest, TooManyJobsAreRefusedUntilSomeHaveEnded) {
  for (int i = 0; i < kMaxJobs; ++i) {
    ASSERT_TRUE(engine_.Submit(Record(absl::StrCat("j-", i)), "bytes").ok());
  }
  const absl::Status refused = engine_.Submit(Record("j-more"), "bytes").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused), reason::kTooManyJobs);
  EXPECT_EQ(MetadataOf(refused).at("value"), absl::StrCat(kMaxJobs));
  EXPECT_GT(RetrySecondsOf(refused), 0);
  engine_.Cancel(absl::StrCat("j-", kMaxJobs - 1));  // it waits: there is one device
  EXPECT_TRUE(engine_.Submit(Record("j-more"), "bytes").ok());
}

TEST_F(EngineTest, WhatWasSubmittedTogetherIsWrittenTogetherAndAnsweredOneByOne) {
  std::vector<std::thread> clients;
  std::atomic<int> accepted{0};
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([this, i, &accepted] {
      JobRecord record = Record(absl::StrCat("j-", i));
      record.request_id = absl::StrCat("r-", i / 2);
      accepted += engine_.Submit(record, "bytes").ok();
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(accepted, 2) << "one of each request id";
}

// A planner that takes until the test says so.
// The engine stands still while it says that a job was submitted.
class HeldObserver : public EngineObserver {
 public:
  void JobSubmitted(const JobRecord&) override {
    reached_.set_value();
    released_.get_future().wait();
  }
  void WaitReached() { reached_.get_future().wait(); }
  void Release() { released_.set_value(); }

 private:
  std::promise<void> reached_, released_;
};

class HeldObserverOwner {
 protected:
  HeldObserver observer_;
};
class OverloadTest : private HeldObserverOwner, public ::testing::Test, protected EngineHarness {
 protected:
  OverloadTest() : EngineHarness(Small(), {.observer = &observer_}) {}
  static EngineConfig Small() {
    EngineConfig config = Config();
    config.backlog = {.stream_messages = 4, .messages = 2};
    return config;
  }
  absl::Status Say(bool heartbeat) {
    v1::WorkerMessage message;
    if (heartbeat) {
      message.mutable_heartbeat()->set_sequence(++sequence_);
    } else {
      message.mutable_event()->mutable_gang()->set_job("j-0");
    }
    return engine_.OnMessage("a", 1, message);
  }
  void HoldEngine() {
    submit_ = std::async(std::launch::async, [this] { return engine_.Submit(Record("j-1"), "bytes").ok(); });
    observer_.WaitReached();
  }
  void ReleaseEngine() {
    observer_.Release();
    EXPECT_TRUE(submit_.get());
  }

  std::future<bool> submit_;
  int64_t sequence_ = 0;
};

TEST_F(OverloadTest, OfAnEngineThatStandsStillIsBoundedAndHeartbeatsComeFirst) {
  HoldEngine();
  EXPECT_TRUE(Say(false).ok());
  EXPECT_TRUE(Say(false).ok());
  EXPECT_EQ(ReasonOf(Say(false)), reason::kOverloaded) << "all may have two";
  EXPECT_TRUE(Say(true).ok());
  EXPECT_TRUE(Say(true).ok());
  EXPECT_EQ(ReasonOf(Say(true)), reason::kOverloaded) << "this stream may have four";
  v1::Hello hello;
  hello.set_node("b");
  EXPECT_EQ(ReasonOf(engine_.OnHello(hello, 2, link_)), reason::kOverloaded);
  ReleaseEngine();
  EXPECT_TRUE(link_->WaitAnswered(2));
  EXPECT_TRUE(Say(false).ok()) << "it has come to all of it";
}

class SlowPlanner {
 public:
  EngineHooks hooks() {
    return {nullptr, [this](const JobSpec& job, const ClusterSnapshot& cluster,
                            const Calibration& calibration, const PlanOptions& options) {
              std::call_once(begun_once_, [this] { begun_.set_value(); });
              ended_.wait();
              return PlanJob(job, cluster, calibration, options);
            }};
  }
  bool WaitBegun() {
    return begun_.get_future().wait_for(std::chrono::seconds(30)) == std::future_status::ready;
  }
  void End() {
    std::call_once(end_once_, [this] { end_.set_value(); });
  }

 private:
  std::once_flag begun_once_, end_once_;
  std::promise<void> begun_, end_;
  const std::shared_future<void> ended_ = end_.get_future().share();
};

class PlanningTest : public EngineTest {
 protected:
  PlanningTest() : PlanningTest(std::make_shared<SlowPlanner>()) {}
  explicit PlanningTest(const std::shared_ptr<SlowPlanner>& planner)
      : EngineTest(Config(), planner->hooks()), planner_(planner) {}
  ~PlanningTest() override { planner_->End(); }
  const std::shared_ptr<SlowPlanner> planner_;
};

TEST_F(PlanningTest, NeverDelaysAHeartbeatOrASubmit) {
  ASSERT_TRUE(engine_.Submit(Record("j-1"), "bytes").ok());
  ASSERT_TRUE(planner_->WaitBegun());
  v1::WorkerMessage heartbeat;
  for (int sequence = 1; sequence <= 3; ++sequence) {
    heartbeat.mutable_heartbeat()->set_sequence(sequence);
    EXPECT_TRUE(engine_.OnMessage("a", 1, heartbeat).ok());
    EXPECT_TRUE(link_->WaitAnswered(sequence)) << "the plan is not there yet";
  }
  EXPECT_TRUE(engine_.Submit(Record("j-2"), "bytes").ok());
  planner_->End();
  EXPECT_TRUE(link_->WaitFor(v1::CoordinatorMessage::kStart));
}

}  // namespace
}  // namespace seqpar
