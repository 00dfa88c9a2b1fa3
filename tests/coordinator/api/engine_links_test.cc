// Links between nodes are measured while no job waits: what the engine tells the nodes, and what it keeps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/job/proto.h"
#include "tests/coordinator/api/engine_fixture.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kIdleUs = 30'000'000;
constexpr auto kPatience = std::chrono::seconds(30);

// Keeps what it is sent.
class RecordingLink : public NodeLink {
 public:
  void Send(v1::CoordinatorMessage message) override {
    std::lock_guard<std::mutex> lock(mutex_);
    messages_.push_back(std::move(message));
    changed_.notify_all();
  }
  void Close(const absl::Status&) override {}

  // The next of the kind that was not taken before; none within half a minute.
  std::optional<v1::CoordinatorMessage> Take(v1::CoordinatorMessage::MessageCase kind) {
    std::unique_lock<std::mutex> lock(mutex_);
    std::optional<v1::CoordinatorMessage> taken;
    changed_.wait_for(lock, kPatience, [&] {
      for (auto it = messages_.begin(); it != messages_.end(); ++it) {
        if (it->message_case() != kind) continue;
        taken = *it;
        messages_.erase(it);
        return true;
      }
      return false;
    });
    return taken;
  }
  bool Has(v1::CoordinatorMessage::MessageCase kind) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const v1::CoordinatorMessage& message : messages_) {
      if (message.message_case() == kind) return true;
    }
    return false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::CoordinatorMessage> messages_;
};

class Outcomes : public EngineObserver {
 public:
  void LinkEnded(const LinkEnds&, LinkOutcome outcome) override {
    std::lock_guard<std::mutex> lock(mutex_);
    outcomes_.push_back(outcome);
    changed_.notify_all();
  }
  std::optional<LinkOutcome> Wait(size_t index) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return outcomes_.size() > index; });
    if (outcomes_.size() <= index) return std::nullopt;
    return outcomes_[index];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<LinkOutcome> outcomes_;
};

// A base before the harness: the engine's thread looks at it until it is stopped.
struct WithOutcomes {
  const std::unique_ptr<Outcomes> outcomes_ = std::make_unique<Outcomes>();
};

class EngineLinksTest : public ::testing::Test, protected WithOutcomes, protected EngineHarness {
 protected:
  EngineLinksTest() : EngineHarness(LongLeases(), {outcomes_.get(), PlanJob}) {}

  static EngineConfig LongLeases() {
    EngineConfig config = Config();
    config.lease_us = int64_t{3600} * 1'000'000;
    return config;
  }
  // The nodes b and c, which can measure links; a, the harness's own, cannot.
  void Attach() {
    for (const char* name : {"b", "c"}) {
      links_.push_back(std::make_shared<RecordingLink>());
      v1::Hello hello;
      hello.set_node(name);
      hello.set_version("1");
      hello.set_link_key("eth0");
      *hello.add_devices() = Device();
      hello.mutable_local()->set_latency(1e-6);
      hello.mutable_local()->set_bandwidth(1e10);
      EXPECT_TRUE(engine_.OnHello(hello, static_cast<int64_t>(1 + links_.size()), links_.back()).ok());
      ASSERT_TRUE(links_.back()->Take(v1::CoordinatorMessage::kWelcome));
    }
  }
  void BeQuiet(int64_t us = kIdleUs) {
    clock_.AdvanceMicros(us);
    Say(0, Heartbeat());  // wakes the engine
  }
  v1::WorkerMessage Heartbeat() {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_sequence(++sequence_);
    return message;
  }
  void Say(int node, const v1::WorkerMessage& message) {
    EXPECT_TRUE(engine_.OnMessage(node == 0 ? "b" : "c", node + 2, message).ok());
  }
  // The gang that both were told to start.
  v1::GangId Started() {
    v1::GangId gang;
    for (int i = 0; i < 2; ++i) {
      const auto start = links_[i]->Take(v1::CoordinatorMessage::kStart);
      EXPECT_TRUE(start && start->start().has_measure_link());
      if (!start) continue;
      EXPECT_EQ(start->start().measure_link().ranks(), 2);
      EXPECT_EQ(start->start().ranks_size(), 1);
      EXPECT_EQ(start->start().ranks(0).rank(), i);
      gang = start->start().gang();
    }
    return gang;
  }
  static v1::WorkerMessage BlobOf(const v1::GangId& gang, int rank) {
    v1::WorkerMessage message;
    *message.mutable_blob()->mutable_gang() = gang;
    message.mutable_blob()->set_group("world");
    message.mutable_blob()->set_rank(rank);
    message.mutable_blob()->set_data(rank == 0 ? "first" : "second");
    return message;
  }
  static v1::WorkerMessage Finished(const v1::GangId& gang, int rank, double bandwidth) {
    v1::WorkerMessage message;
    *message.mutable_event()->mutable_gang() = gang;
    message.mutable_event()->set_rank(rank);
    message.mutable_event()->set_kind(v1::RankEvent::FINISHED);
    message.mutable_event()->mutable_link()->set_latency(2e-6);
    message.mutable_event()->mutable_link()->set_bandwidth(bandwidth);
    return message;
  }
  void Measure(double bandwidth) {
    const v1::GangId gang = Started();
    for (int i = 0; i < 2; ++i) Say(i, Finished(gang, i, bandwidth));
  }
  v1::Node NodeB() {
    for (const v1::Node& node : engine_.Nodes(std::nullopt)) {
      if (node.name() == "b") return node;
    }
    return {};
  }

  std::vector<std::shared_ptr<RecordingLink>> links_;
  int64_t sequence_ = 0;
};

TEST_F(EngineLinksTest, IdleNodesAreMeasuredAndTheFigureIsKept) {
  Attach();
  BeQuiet();
  const v1::GangId gang = Started();
  for (int i = 0; i < 2; ++i) Say(i, BlobOf(gang, i));
  for (int i = 0; i < 2; ++i) {
    const auto table = links_[i]->Take(v1::CoordinatorMessage::kBlobs);
    ASSERT_TRUE(table);
    EXPECT_THAT(table->blobs().blobs(), ::testing::ElementsAre("first", "second"));
  }
  for (int i = 0; i < 2; ++i) Say(i, Finished(gang, i, 3e9));
  EXPECT_EQ(outcomes_->Wait(0), LinkOutcome::kMeasured);
  const v1::Node node = NodeB();
  ASSERT_EQ(node.links_size(), 1);
  EXPECT_EQ(node.links(0).peer(), "c");
  EXPECT_EQ(node.links(0).device_kind(), "cpu");
  EXPECT_EQ(node.links(0).rates().bandwidth(), 3e9);
  EXPECT_FALSE(node.links(0).outdated());
  EXPECT_THAT(*store_.Setting("links"), HasSubstr("cpu\tb\tc\t"));
  const auto [cluster, calibration] = engine_.Cluster();
  ASSERT_EQ(cluster->links.size(), 1u);
  EXPECT_EQ(cluster->links[0].rates.latency, 2e-6);
}

TEST_F(EngineLinksTest, AJobThatComesEndsItAtOnceAndGetsTheDevices) {
  Attach();
  BeQuiet();
  const v1::GangId gang = Started();
  JobRecord record = Record("j-1");
  record.spec.min_workers = record.spec.max_workers = 3;
  ASSERT_TRUE(engine_.Submit(record, "bytes").ok());
  for (int i = 0; i < 2; ++i) {
    const auto stop = links_[i]->Take(v1::CoordinatorMessage::kStop);
    ASSERT_TRUE(stop);
    EXPECT_EQ(stop->stop().gang().job(), gang.job());
    const auto start = links_[i]->Take(v1::CoordinatorMessage::kStart);
    ASSERT_TRUE(start) << "nobody has said that anything of the link is gone";
    EXPECT_EQ(start->start().gang().job(), "j-1");
  }
  EXPECT_EQ(outcomes_->Wait(0), LinkOutcome::kInterrupted);
  // What comes of it now concerns nobody.
  for (int i = 0; i < 2; ++i) Say(i, Finished(gang, i, 3e9));
  EXPECT_EQ(NodeB().links_size(), 0);
}

TEST_F(EngineLinksTest, ARankThatFailsEndsItAndItIsNotTriedAgainAtOnce) {
  Attach();
  BeQuiet();
  const v1::GangId gang = Started();
  v1::WorkerMessage failed;
  *failed.mutable_event()->mutable_gang() = gang;
  failed.mutable_event()->set_rank(1);
  failed.mutable_event()->set_kind(v1::RankEvent::FAILED);
  *failed.mutable_event()->mutable_error() =
      StatusToProto(MakeError(absl::StatusCode::kUnavailable, reason::kRankFailed, "killed"));
  Say(1, failed);
  EXPECT_EQ(outcomes_->Wait(0), LinkOutcome::kFailed);
  EXPECT_TRUE(links_[0]->Take(v1::CoordinatorMessage::kStop)) << "the other is not left alone";
  EXPECT_EQ(NodeB().links_size(), 0);
  NodeB();  // another round of the engine
  EXPECT_FALSE(links_[0]->Has(v1::CoordinatorMessage::kStart));
  BeQuiet(LinkPolicy().backoff_us);
  Measure(3e9);
  EXPECT_EQ(outcomes_->Wait(1), LinkOutcome::kMeasured);
}

TEST_F(EngineLinksTest, ANodeThatSpeaksForAnothersRankIsNotHeard) {
  Attach();
  BeQuiet();
  const v1::GangId gang = Started();
  Say(0, Finished(gang, 1, 9e9));
  Say(0, Finished(gang, 7, 9e9));
  Say(0, Finished(gang, 0, 3e9));
  Say(1, Finished(gang, 1, 3e9));
  EXPECT_EQ(outcomes_->Wait(0), LinkOutcome::kMeasured);
  EXPECT_EQ(NodeB().links(0).rates().bandwidth(), 3e9);
}

TEST_F(EngineLinksTest, WhatIsNoRateIsAFailure) {
  Attach();
  BeQuiet();
  Say(0, Finished(Started(), 0, -1));
  EXPECT_EQ(outcomes_->Wait(0), LinkOutcome::kFailed);
}

TEST_F(EngineLinksTest, OneThatHangsIsEnded) {
  Attach();
  BeQuiet();
  Started();
  BeQuiet(LinkPolicy().timeout_us);
  EXPECT_EQ(outcomes_->Wait(0), LinkOutcome::kFailed);
}

TEST_F(EngineLinksTest, ANodeThatComesAgainAsAnotherIsMeasuredAgain) {
  Attach();
  BeQuiet();
  Measure(3e9);
  ASSERT_EQ(outcomes_->Wait(0), LinkOutcome::kMeasured);
  v1::Hello hello;
  hello.set_node("c");
  hello.set_incarnation(2);
  hello.set_version("1");
  hello.set_link_key("eth1");
  *hello.add_devices() = Device();
  EXPECT_TRUE(engine_.OnHello(hello, 4, links_[1]).ok());
  ASSERT_TRUE(links_[1]->Take(v1::CoordinatorMessage::kWelcome));
  EXPECT_TRUE(NodeB().links(0).outdated());
  EXPECT_TRUE(engine_.Cluster().first->links.empty()) << "no plan is made with it";
}

}  // namespace
}  // namespace seqpar
