// Jobs that wait until their deadline: looked at when it is over, and not before.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <variant>

#include "common/base/status.h"
#include "common/job/proto.h"
#include "coordinator/engine/record_codec.h"
#include "tests/coordinator/api/engine_fixture.h"

namespace seqpar {
namespace {

class TickCounter : public EngineObserver {
 public:
  void JobStepped(const JobRecord&, const JobEvent& event) override {
    ticks += std::holds_alternative<event::Tick>(event) ? 1 : 0;
  }
  std::atomic<int> ticks{0};
};

class DeadlinesTest : public ::testing::Test {
 protected:
  // Of two ranks, where there is one device.
  static JobRecord Waiting(const std::string& id, double deadline_seconds) {
    JobRecord record = EngineHarness::Record(id);
    record.fits = true;
    record.spec.min_workers = 2;
    record.spec.deadline_seconds = deadline_seconds;
    return record;
  }

  TickCounter counter_;
  EngineHarness harness_{EngineHarness::Config(), {&counter_}};
};

TEST_F(DeadlinesTest, EndAJobThatWaitsAndCostNothingUntilThen) {
  ASSERT_TRUE(harness_.engine_.Submit(Waiting("j-1", 60), "bytes").ok());
  ASSERT_TRUE(harness_.engine_.Submit(Waiting("j-2", 600), "bytes").ok());
  harness_.clock_.AdvanceMicros(58'000'000);
  for (int round = 0; round < 50; ++round) EXPECT_TRUE(harness_.engine_.ViewLive("j-1").has_value());
  EXPECT_EQ(counter_.ticks, 0) << "thousands may wait so";
  harness_.clock_.AdvanceMicros(2'000'000);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (harness_.engine_.ViewLive("j-1") && std::chrono::steady_clock::now() < end) {
  }
  const auto row = harness_.store_.Get("j-1");
  ASSERT_TRUE(row.ok() && row->has_value());
  const auto job = ViewOfRow(**row);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(ReasonOf(StatusFromProto(job->error())), reason::kDeadlineExceeded);
  EXPECT_TRUE(harness_.engine_.ViewLive("j-2").has_value());
}

}  // namespace
}  // namespace seqpar
