#include "common/device/host_stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <vector>

namespace seqpar {
namespace {

// An operation that blocks until the test opens it.
class Gate {
 public:
  void Open() { promise_.set_value(); }
  std::function<absl::Status()> Operation() {
    return [opened = opened_] {
      opened.wait();
      return absl::OkStatus();
    };
  }

 private:
  std::promise<void> promise_;
  std::shared_future<void> opened_ = promise_.get_future().share();
};

std::function<absl::Status()> Append(std::vector<int>* to, int value) {
  return [=] {
    to->push_back(value);
    return absl::OkStatus();
  };
}

TEST(HostStreamTest, OperationsHappenInOrder) {
  const auto stream = MakeHostStream("order");
  std::vector<int> seen;
  for (int i = 0; i < 100; ++i) stream->HostFunction(Append(&seen, i));
  EXPECT_TRUE(stream->Synchronize().ok());
  ASSERT_EQ(seen.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(seen[i], i);
}

TEST(HostStreamTest, EnqueueingDoesNotWaitForOperations) {
  Gate gate;
  const auto stream = MakeHostStream("async");
  std::vector<int> seen;
  stream->HostFunction(gate.Operation());
  stream->HostFunction(Append(&seen, 1));
  gate.Open();  // reached only because the calls above returned
  EXPECT_TRUE(stream->Synchronize().ok());
  EXPECT_EQ(seen, std::vector<int>{1});
}

TEST(HostStreamTest, AnEventOrdersTwoStreams) {
  Gate gate;
  std::vector<int> seen;
  const auto first = MakeHostStream("first"), second = MakeHostStream("second");
  first->HostFunction(gate.Operation());
  first->HostFunction(Append(&seen, 1));
  second->Wait(first->Record());
  second->HostFunction(Append(&seen, 2));
  gate.Open();
  EXPECT_TRUE(second->Synchronize().ok());
  EXPECT_EQ(seen, (std::vector<int>{1, 2}));
}

TEST(HostStreamTest, AnEventCoversOnlyWhatWasEnqueuedBeforeIt) {
  Gate gate;
  const auto first = MakeHostStream("first"), second = MakeHostStream("second");
  const Event early = first->Record();
  first->HostFunction(gate.Operation());
  second->Wait(early);
  EXPECT_TRUE(second->Synchronize().ok());  // although the first stream is still busy
  gate.Open();
}

TEST(HostStreamTest, ADefaultEventHasHappened) {
  const auto stream = MakeHostStream("default");
  stream->Wait(Event());
  EXPECT_TRUE(stream->Synchronize().ok());
}

TEST(HostStreamTest, TheFirstFailureIsStickyAndSkipsTheRest) {
  const auto stream = MakeHostStream("sticky");
  std::vector<int> seen;
  stream->HostFunction(Append(&seen, 1));
  stream->HostFunction([] { return absl::DataLossError("first"); });
  stream->HostFunction(Append(&seen, 2));
  stream->HostFunction([] { return absl::InternalError("second"); });
  EXPECT_EQ(stream->Synchronize(), absl::DataLossError("first"));
  EXPECT_EQ(stream->status(), absl::DataLossError("first"));
  EXPECT_EQ(stream->Synchronize(), absl::DataLossError("first"));
  EXPECT_EQ(seen, std::vector<int>{1});
}

TEST(HostStreamTest, FailuresTravelWithEvents) {
  const auto first = MakeHostStream("first"), second = MakeHostStream("second"),
             third = MakeHostStream("third");
  std::vector<int> seen;
  const Event before = first->Record();
  first->HostFunction([] { return absl::DataLossError("why"); });
  const Event after = first->Record();
  second->Wait(before);
  second->HostFunction(Append(&seen, 1));
  second->Wait(after);
  second->HostFunction(Append(&seen, 2));
  third->Wait(second->Record());
  EXPECT_EQ(third->Synchronize(), absl::DataLossError("why"));
  EXPECT_EQ(second->status(), absl::DataLossError("why"));
  EXPECT_EQ(seen, std::vector<int>{1});
}

TEST(HostStreamTest, FailSkipsWhatHasNotBegun) {
  Gate gate;
  const auto stream = MakeHostStream("fail");
  std::vector<int> seen;
  stream->HostFunction(gate.Operation());
  stream->HostFunction(Append(&seen, 1));
  stream->Fail(absl::CancelledError("stop"));
  stream->Fail(absl::InternalError("later"));
  EXPECT_EQ(stream->status(), absl::CancelledError("stop"));
  gate.Open();
  EXPECT_EQ(stream->Synchronize(), absl::CancelledError("stop"));
  EXPECT_TRUE(seen.empty());
}

TEST(HostStreamTest, FailEndsAWaitForAnEventThatHasNotHappened) {
  Gate gate;
  const auto stuck = MakeHostStream("stuck"), waiting = MakeHostStream("waiting");
  stuck->HostFunction(gate.Operation());
  waiting->Wait(stuck->Record());
  waiting->Fail(absl::CancelledError("stop"));
  EXPECT_EQ(waiting->Synchronize(), absl::CancelledError("stop"));
  gate.Open();
  EXPECT_TRUE(stuck->Synchronize().ok());
}

TEST(HostStreamTest, DestructionWaitsForEverythingEnqueued) {
  std::atomic<int> done = 0;
  Event last;
  auto stream = MakeHostStream("destroyed");
  for (int i = 0; i < 50; ++i) {
    stream->HostFunction([&done] {
      ++done;
      return absl::OkStatus();
    });
  }
  last = stream->Record();
  stream.reset();
  EXPECT_EQ(done, 50);
  const auto other = MakeHostStream("other");
  other->Wait(last);  // an event outlives its stream
  EXPECT_TRUE(other->Synchronize().ok());
}

TEST(HostStreamTest, AnOperationIsReleasedBeforeTheNextHappens) {
  const auto stream = MakeHostStream("release");
  auto held = std::make_shared<int>(1);
  std::weak_ptr<int> watch = held;
  stream->HostFunction([held = std::move(held)] { return absl::OkStatus(); });
  bool released = false;
  stream->HostFunction([&] {
    released = watch.expired();
    return absl::OkStatus();
  });
  EXPECT_TRUE(stream->Synchronize().ok());
  EXPECT_TRUE(released);
}

TEST(HostStreamTest, TimesTellWorkFromWaiting) {
  const auto worker = MakeHostStream("worker"), waiter = MakeHostStream("waiter");
  EXPECT_EQ(worker->times().busy_seconds, 0);
  // The operation ends only when the clock has moved on, so that busy time is positive without a sleep.
  worker->HostFunction([] {
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() == start) {
    }
    return absl::OkStatus();
  });
  waiter->Wait(worker->Record());
  EXPECT_TRUE(waiter->Synchronize().ok());
  EXPECT_GT(worker->times().busy_seconds, 0);
  EXPECT_EQ(worker->times().wait_seconds, 0);
  EXPECT_EQ(waiter->times().busy_seconds, 0);
}

// Keeps every span; asks for the times when it is told, as whoever subtracts them would.
class Spans : public StreamObserver {
 public:
  void Happened(const StreamSpan& span) override { spans.push_back(span); }
  std::vector<StreamSpan> spans;
};

TEST(HostStreamTest, AnObserverIsToldSpansThatAddUpToTheTimes) {
  Spans seen, seen_waiting;
  const auto worker = MakeHostStream("worker"), waiter = MakeHostStream("waiter");
  worker->Observe(&seen);
  waiter->Observe(&seen_waiting);
  const auto spin = [] {
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < std::chrono::microseconds(50)) {
    }
    return absl::OkStatus();
  };
  worker->HostFunction(WorkKind::kAttention, spin);
  worker->Name("ring");
  worker->HostFunction(spin);
  worker->Name(nullptr);
  waiter->Wait(worker->Record());
  worker->HostFunction(WorkKind::kProduct, spin);
  ASSERT_TRUE(waiter->Synchronize().ok());
  ASSERT_TRUE(worker->Synchronize().ok());

  ASSERT_EQ(seen.spans.size(), 3u);
  EXPECT_EQ(seen.spans[0].kind, WorkKind::kAttention);
  EXPECT_EQ(seen.spans[0].name, nullptr);
  EXPECT_STREQ(seen.spans[1].name, "ring");
  EXPECT_EQ(seen.spans[2].kind, WorkKind::kProduct);
  EXPECT_EQ(seen.spans[2].name, nullptr);
  int64_t busy_ns = 0, end_ns = 0;
  for (const StreamSpan& span : seen.spans) {
    EXPECT_FALSE(span.waiting);
    EXPECT_GE(span.begin_ns, end_ns);
    end_ns = span.end_ns;
    busy_ns += span.end_ns - span.begin_ns;
  }
  EXPECT_NEAR(worker->times().busy_seconds, static_cast<double>(busy_ns) * 1e-9, 1e-12);
  // None where the event had happened before the stream came to it.
  int64_t wait_ns = 0;
  for (const StreamSpan& span : seen_waiting.spans) {
    EXPECT_TRUE(span.waiting);
    wait_ns += span.end_ns - span.begin_ns;
  }
  EXPECT_LE(seen_waiting.spans.size(), 1u);
  EXPECT_NEAR(waiter->times().wait_seconds, static_cast<double>(wait_ns) * 1e-9, 1e-12);
}

}  // namespace
}  // namespace seqpar
