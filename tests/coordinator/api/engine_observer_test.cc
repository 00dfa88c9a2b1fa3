// What the engine owes to its observer.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "tests/coordinator/api/engine_fixture.h"

namespace seqpar {
namespace {

// Counts ends, and holds the engine's thread when "j-hold" is submitted, so that what comes meanwhile is one
// batch.
class EndCounter : public EngineObserver {
 public:
  void JobSubmitted(const JobRecord& record) override {
    if (record.id != "j-hold") return;
    held.set_value();
    go.get_future().wait();
  }
  void JobStepped(const JobRecord& record, const JobEvent&) override {
    ends += record.id == "j-1" && record.ended() ? 1 : 0;
  }
  std::promise<void> held, go;
  std::atomic<int> ends{0};
};

// Of two ranks, where there is one device.
JobRecord Waiting(const std::string& id) {
  JobRecord record = EngineHarness::Record(id);
  record.fits = true;
  record.spec.min_workers = 2;
  return record;
}

TEST(EngineObserver, SeesAJobEndOnceThoughMoreHappensToItInTheSameBatch) {
  constexpr int kThreads = 8;
  EndCounter counter;
  EngineHarness harness(EngineHarness::Config(), {&counter});
  ASSERT_TRUE(harness.engine_.Submit(Waiting("j-1"), "bytes").ok());
  std::vector<std::thread> threads;
  threads.emplace_back([&] { EXPECT_TRUE(harness.engine_.Submit(Waiting("j-hold"), "bytes").ok()); });
  counter.held.get_future().wait();
  std::atomic<int> calling{0};
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      ++calling;
      harness.engine_.Cancel("j-1");
    });
  }
  while (calling < kThreads) std::this_thread::yield();
  counter.go.set_value();
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(harness.engine_.ViewLive("j-1").has_value());
  EXPECT_EQ(counter.ends, 1);
}

}  // namespace
}  // namespace seqpar
