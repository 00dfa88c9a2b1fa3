// Tenants with limits, through the engine: who is refused, who waits, and that nobody waits for another's.
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "tests/coordinator/api/engine_fixture.h"

namespace seqpar {
namespace {

class TenantsTest : public EngineTest {
 protected:
  TenantsTest() : EngineTest(Limited(), {}, /*devices=*/4) {}

  static EngineConfig Limited() {
    EngineConfig config;
    config.tenants.own["search"] = {.queued_jobs = 3, .running_jobs = 1};
    return config;
  }
  // Of one rank.
  static JobRecord Single(const std::string& id, const std::string& tenant) {
    JobRecord record = Record(id, tenant);
    record.spec.max_workers = 1;
    return record;
  }
  void Submit(const std::string& id, const std::string& tenant) {
    const auto taken = engine_.Submit(Single(id, tenant), "bytes");
    EXPECT_TRUE(taken.ok()) << taken.status();
  }
  // The job once `done` holds of it, or as it is after half a minute.
  v1::Job Await(const std::string& id, const std::function<bool(const v1::Job&)>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    v1::Job job;
    do {
      job = engine_.ViewLive(id).value_or(v1::Job());
    } while (!done(job) && std::chrono::steady_clock::now() < end);
    return job;
  }
  bool Begins(const std::string& id) {
    return Await(id, [](const v1::Job& j) { return j.attempts_size() > 0; }).attempts_size() > 0;
  }
  bool Waits(const std::string& id, const std::string& why) {
    const auto says = [&](const v1::Job& j) { return absl::StrContains(j.reason(), why); };
    return says(Await(id, says));
  }
  // Ends a job of which the ranks have begun.
  void End(const std::string& id) {
    engine_.Cancel(id);
    const std::optional<v1::Job> job = engine_.ViewLive(id);
    if (!job) return;
    v1::WorkerMessage message;
    v1::RankEvent* event = message.mutable_event();
    event->mutable_gang()->set_job(id);
    event->mutable_gang()->set_attempt(job->attempt());
    event->set_kind(v1::RankEvent::STOPPED);
    EXPECT_TRUE(engine_.OnMessage("a", 1, message).ok());
    Await(id, [](const v1::Job& j) { return j.id().empty(); });
  }
};

TEST_F(TenantsTest, WhoRunsAllThatItMayWaitsAndOthersPass) {
  Submit("s-1", "search");
  ASSERT_TRUE(Begins("s-1"));
  Submit("s-2", "search");
  EXPECT_TRUE(Waits("s-2", "waits for a job of its tenant to end: 1 may run at once"));
  Submit("s-3", "search");
  EXPECT_TRUE(Waits("s-3", "waits behind s-2 of its tenant"));
  Submit("v-1", "vision");
  Submit("v-2", "vision");
  EXPECT_TRUE(Begins("v-1"));
  EXPECT_TRUE(Begins("v-2"));
  End("s-1");
  EXPECT_TRUE(Begins("s-2"));
  EXPECT_TRUE(Waits("s-3", "waits for a job of its tenant to end"));
  End("s-2");
  EXPECT_TRUE(Begins("s-3"));
}

TEST_F(TenantsTest, TheEndOfOneThatWaitsLetsThoseBehindItGoOn) {
  Submit("s-1", "search");
  ASSERT_TRUE(Begins("s-1"));
  Submit("s-2", "search");
  ASSERT_TRUE(Waits("s-2", "waits for a job of its tenant"));
  Submit("s-3", "search");
  engine_.Cancel("s-2");
  EXPECT_TRUE(Waits("s-3", "waits for a job of its tenant to end: 1 may run at once"));
  End("s-1");
  EXPECT_TRUE(Begins("s-3"));
}

TEST_F(TenantsTest, WhoHasAFullQueueIsRefusedAlone) {
  Submit("s-1", "search");
  ASSERT_TRUE(Begins("s-1"));
  for (const char* id : {"s-2", "s-3", "s-4"}) Submit(id, "search");
  const absl::Status refused = engine_.Submit(Single("s-5", "search"), "bytes").status();
  EXPECT_EQ(ReasonOf(refused), reason::kTenantLimit) << refused;
  EXPECT_GT(RetrySecondsOf(refused), 0);
  Submit("v-1", "vision");
  engine_.Cancel("s-3");
  Submit("s-5", "search");
}

}  // namespace
}  // namespace seqpar
