#include "worker/executor/progress.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <future>

#include "tests/support/time.h"

namespace seqpar {
namespace {

// Collects what is sent.
class Sent {
 public:
  std::function<void(const v1::RankProgress&)> Sender() {
    return [this](const v1::RankProgress& progress) {
      std::lock_guard<std::mutex> lock(mutex_);
      all_.push_back(progress);
      changed_.notify_all();
    };
  }
  bool WaitFor(const std::function<bool(const v1::RankProgress&)>& wanted) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, TestSeconds(30), [&] {
      for (const v1::RankProgress& progress : all_) {
        if (wanted(progress)) return true;
      }
      return false;
    });
  }
  size_t size() {
    std::lock_guard<std::mutex> lock(mutex_);
    return all_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::RankProgress> all_;
};

TEST(ProgressTest, APhaseIsSentAtOnceAndLayersSoon) {
  Sent sent;
  Progress progress({}, sent.Sender());
  progress.Enter(JobPhase::kExecute);
  EXPECT_GE(sent.size(), 1u);
  EXPECT_TRUE(sent.WaitFor([](const v1::RankProgress& p) {
    return p.phase() == v1::JOB_PHASE_EXECUTE && p.waiting_for_rank() == -1;
  }));
  progress.Advance("backward", 3, 0.75);
  EXPECT_TRUE(sent.WaitFor([](const v1::RankProgress& p) {
    return p.pass() == "backward" && p.layer() == 3 && p.percent() == 75;
  }));
}

TEST(ProgressTest, EveryPieceOfWorkGrowsTheStep) {
  Sent sent;
  Progress progress({}, sent.Sender());
  progress.Enter(JobPhase::kShard);
  for (int i = 0; i < 100; ++i) progress.Step();
  EXPECT_TRUE(sent.WaitFor([](const v1::RankProgress& p) { return p.step() == 101; }));
}

TEST(ProgressTest, SecondsAreByPhaseInOrder) {
  Progress progress({}, [](const v1::RankProgress&) {});
  progress.Enter(JobPhase::kBootstrap);
  progress.Enter(JobPhase::kShard);
  const std::vector<v1::PhaseSeconds> seconds = progress.Seconds();
  ASSERT_EQ(seconds.size(), 2u);
  EXPECT_EQ(seconds[0].phase(), "bootstrap");
  EXPECT_EQ(seconds[1].phase(), "shard");
  EXPECT_GE(seconds[0].seconds(), 0);
}

TEST(ProgressTest, TotalsFollowTheWorkAndStayWhenItIsDone) {
  Sent sent;
  Progress progress({}, sent.Sender());
  progress.Enter(JobPhase::kBootstrap);
  TrafficCounter traffic({Link::kLocal, Link::kNetwork});
  traffic.Add({Operation::kRing, Pass::kForward}, 1, 70, 2);
  traffic.Add({Operation::kRing, Pass::kBackward}, 1, 30, 1);
  ProgressSources sources;
  sources.traffic = &traffic;
  sources.tokens = 64;
  sources.flops = 1000;
  progress.Watch(sources);
  progress.Enter(JobPhase::kExecute);
  PassFigures figures;
  figures.compute_seconds = 4;
  figures.attention_seconds = 1;
  figures.product_seconds = 2;
  figures.exposed_seconds = 0.5;
  progress.Measure([&figures] { return figures; });
  progress.Advance("forward", 1, 0.25);
  EXPECT_TRUE(sent.WaitFor([](const v1::RankProgress& p) {
    const v1::RankTotals& t = p.totals();
    return t.tokens() == 16 && t.flops() == 250 && t.flops_seconds() == 4 && t.attention_seconds() == 1 &&
           t.product_seconds() == 2 && t.pointwise_seconds() == 0 && t.other_seconds() == 1 &&
           t.communication_exposed_seconds() == 0.5 && t.phases_size() == 2 &&
           t.phases(1).phase() == "execute" && t.traffic_size() == 1 && t.traffic(0).link() == "network" &&
           t.traffic(0).bytes() == 100 && t.traffic(0).messages() == 3;
  }));
  progress.StopMeasuring();
  progress.Enter(JobPhase::kMerge);
  EXPECT_TRUE(sent.WaitFor([](const v1::RankProgress& p) {
    return p.phase() == v1::JOB_PHASE_MERGE && p.totals().other_seconds() == 1 && p.totals().flops() == 250;
  }));
  progress.StopWatching();
}

TEST(ProgressTest, TimeInAPhaseGrowsWhileNothingElseMoves) {
  Sent sent;
  Progress progress({}, sent.Sender());
  progress.Enter(JobPhase::kShard);
  EXPECT_TRUE(sent.WaitFor([](const v1::RankProgress& p) {
    return p.totals().phases_size() == 1 && p.totals().phases(0).seconds() > 0.3 && p.step() == 1;
  }));
}

TEST(ProgressTest, AHoldStopsAtItsPhaseUntilItsFileIsGone) {
  char name[] = "/tmp/seqpar-hold-XXXXXX";
  close(mkstemp(name));
  Sent sent;
  Progress progress({{"shard", name}}, sent.Sender());
  progress.Enter(JobPhase::kBootstrap);  // not its phase
  auto entered = std::async(std::launch::async, [&] { progress.Enter(JobPhase::kShard); });
  ASSERT_TRUE(sent.WaitFor([](const v1::RankProgress& p) { return p.phase() == v1::JOB_PHASE_SHARD; }));
  EXPECT_EQ(entered.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  ASSERT_EQ(std::remove(name), 0);
  EXPECT_EQ(entered.wait_for(TestSeconds(30)), std::future_status::ready);
}

}  // namespace
}  // namespace seqpar
