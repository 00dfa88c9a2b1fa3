#include "worker/executor/stopwatch.h"

#include <gtest/gtest.h>

namespace seqpar {
namespace {

// A stream of which the test says what it has done.
class FakeStream : public Stream {
 public:
  Event Record() override { return {}; }
  void Wait(const Event&) override {}
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::Status status() const override { return absl::OkStatus(); }
  void Fail(const absl::Status&) override {}
  StreamTimes times() const override { return times_; }
  void Work(WorkKind kind, double seconds) {
    times_.busy_seconds += seconds;
    times_.busy_by_kind[static_cast<int>(kind)] += seconds;
  }
  void WaitFor(double seconds) { times_.wait_seconds += seconds; }

 private:
  void Host(std::function<absl::Status()>, WorkKind) override {}
  StreamTimes times_;
};

class StopwatchTest : public ::testing::Test {
 protected:
  FakeStream compute_, comm_;
};

TEST_F(StopwatchTest, CountsFromItsCreationWithoutThePauses) {
  compute_.Work(WorkKind::kAttention, 100);  // before
  Stopwatch watch(&compute_, &comm_);
  compute_.Work(WorkKind::kAttention, 1);
  compute_.Work(WorkKind::kProduct, 2);
  watch.Pause();
  compute_.Work(WorkKind::kAttention, 50);  // verification
  watch.Resume();
  compute_.Work(WorkKind::kPointwise, 4);
  compute_.Work(WorkKind::kOther, 8);
  watch.Pause();
  const PassFigures figures = watch.figures();
  EXPECT_EQ(figures.compute_seconds, 15);
  EXPECT_EQ(figures.attention_seconds, 1);
  EXPECT_EQ(figures.product_seconds, 2);
  EXPECT_EQ(figures.pointwise_seconds, 4);
  EXPECT_GE(figures.wall_seconds, 0);
}

TEST_F(StopwatchTest, CommunicationIsExposedWhereComputeWaitedAndHiddenElse) {
  Stopwatch watch(&compute_, &comm_);
  comm_.Work(WorkKind::kOther, 5);
  compute_.WaitFor(2);
  watch.Pause();
  watch.Resume();
  compute_.WaitFor(1);  // for something else than the transfers
  watch.Pause();
  EXPECT_EQ(watch.figures().exposed_seconds, 3);
  EXPECT_EQ(watch.figures().hidden_seconds, 3);
}

TEST_F(StopwatchTest, NowOnlyGrows) {
  Stopwatch watch(&compute_, &comm_);
  comm_.Work(WorkKind::kOther, 5);
  compute_.Work(WorkKind::kProduct, 1);
  EXPECT_EQ(watch.Now().compute_seconds, 1);
  EXPECT_EQ(watch.Now().hidden_seconds, 0) << "compute may still come to wait for it";
  EXPECT_EQ(watch.figures().compute_seconds, 0) << "nothing was paused yet";
  compute_.WaitFor(5);
  watch.Pause();
  EXPECT_EQ(watch.Now().hidden_seconds, 0);
  EXPECT_EQ(watch.Now().exposed_seconds, 5);
  EXPECT_EQ(watch.Now().product_seconds, 1);
}

}  // namespace
}  // namespace seqpar
