// What clients see of a job goes on through the coordinator's starts, whatever was lost between two of them.
#include <gtest/gtest.h>

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "tests/coordinator/api/engine_fixture.h"

namespace seqpar {
namespace {

class Seen : public Watcher {
 public:
  void Offer(const v1::Job& job) override {
    std::lock_guard<std::mutex> lock(mutex_);
    revisions_.push_back(job.revision());
  }
  void End(const absl::Status&) override {}
  absl::Status Standing() const override { return absl::OkStatus(); }
  std::vector<int64_t> revisions() {
    std::lock_guard<std::mutex> lock(mutex_);
    return revisions_;
  }

 private:
  std::mutex mutex_;
  std::vector<int64_t> revisions_;
};

class OneStart : public EngineHarness {
 public:
  OneStart(const std::string& store, int64_t wall_us) : EngineHarness(Config(), {}, 1, store, wall_us) {}

  // A job that runs, and whose progress has been seen; its revision.
  int64_t RunJob(const std::string& id) {
    EXPECT_TRUE(engine_.Submit(Record(id), "bytes").ok());
    EXPECT_TRUE(link_->WaitFor(v1::CoordinatorMessage::kStart));
    return Progress(10);
  }
  int64_t Progress(double percent) {
    v1::WorkerMessage message;
    v1::RankProgress* progress = message.mutable_heartbeat()->add_ranks();
    *progress->mutable_gang() = link_->gang();
    progress->set_phase(v1::JOB_PHASE_EXECUTE);
    progress->set_percent(percent);
    EXPECT_TRUE(engine_.OnMessage("a", 1, message).ok());
    return Revision(link_->gang().job());
  }
  int64_t Revision(const std::string& id) { return engine_.ViewLive(id).value().revision(); }
};

// A store that the thread of an engine cannot write, only who made it.
class StoreOfOneThread : public ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  absl::Status Write(const WriteBatch& batch, std::vector<std::string>* taken) override {
    if (std::this_thread::get_id() == owner_) return store_->Write(batch, taken);
    return MakeError(absl::StatusCode::kInternal, reason::kStorage, "input/output error");
  }

 private:
  const std::thread::id owner_ = std::this_thread::get_id();
};

class EngineRestartsTest : public ::testing::Test {
 protected:
  static constexpr int64_t kNoonUs = 1'700'000'000'000'000;

  std::unique_ptr<OneStart> Start(const std::string& folder = "store", int64_t wall_us = kNoonUs) {
    return std::make_unique<OneStart>(folder_ / folder, wall_us);
  }
  TempFolder folder_;
};

TEST_F(EngineRestartsTest, AViewHasTheRevisionOfWhatItShows) {
  const auto start = Start();
  const int64_t running = start->RunJob("j-1");
  const int64_t further = start->Progress(20);
  EXPECT_GT(further, running);
  EXPECT_EQ(start->Revision("j-1"), further) << "nothing happened";
  const v1::Job cancelled = start->engine_.Cancel("j-1").value();
  EXPECT_GT(cancelled.revision(), further);
}

TEST_F(EngineRestartsTest, ProgressIsNotStoredAndYetNoRevisionFalls) {
  auto start = Start();
  start->RunJob("j-1");
  int64_t last = start->Progress(20);
  for (int i = 0; i < 5; ++i) {
    start.reset();
    start = Start();
    const auto seen = std::make_shared<Seen>();
    EXPECT_TRUE(start->engine_.Watch("j-1", last, seen));
    ASSERT_FALSE(seen->revisions().empty()) << "less of it is known than was seen: another state";
    EXPECT_GT(seen->revisions()[0], last);
    last = start->Revision("j-1");
  }
}

TEST_F(EngineRestartsTest, ALostWriteTakesNoRevisionBack) {
  auto start = Start();
  start->RunJob("j-1");
  start->store_.broken = true;
  // The process is about to end, but this is said.
  const int64_t said = start->engine_.Cancel("j-1").value().revision();
  start.reset();
  EXPECT_GT(Start()->Revision("j-1"), said);
}

TEST_F(EngineRestartsTest, AClockThatWasSetBackTakesNoRevisionBack) {
  auto start = Start();
  const int64_t last = start->RunJob("j-1");
  start.reset();
  EXPECT_GT(Start("store", 1)->Revision("j-1"), last);
}

TEST_F(EngineRestartsTest, WhatIsTakenUpHasNoRevisionThatIsNotReserved) {
  Start()->RunJob("j-1");
  StoreOfOneThread store(*Store::Open(folder_ / "store"));
  const DataRoots roots;
  const FakeClock clock(1);  // set back
  TestHold hold({});
  TaskPool work(1);
  Engine engine(OneStart::Config(), &store, &roots, &clock, &work, &hold, [](const absl::Status&) {}, {});
  ASSERT_TRUE(engine.Start().ok());
  const int64_t seen = engine.ViewLive("j-1").value().revision();
  work.Drain();
  engine.Stop();
  int64_t reserved = 0;
  ASSERT_TRUE(absl::SimpleAtoi(*store.Setting("revisions"), &reserved));
  EXPECT_LE(seen, reserved) << "nothing else of this start was written";
}

TEST_F(EngineRestartsTest, ABackupTakesNoRevisionBack) {
  auto start = Start();
  start->RunJob("j-1");
  ASSERT_TRUE(start->store_.Backup(folder_ / "backup").ok());
  start.reset();
  // Of this start the backup knows nothing.
  start = Start("store", kNoonUs + 60'000'000);
  const int64_t last = start->Revision("j-1");
  start.reset();
  ASSERT_TRUE(Store::Restore(folder_ / "backup", folder_ / "restored").ok());
  EXPECT_GT(Start("restored", kNoonUs + 120'000'000)->Revision("j-1"), last);
}

}  // namespace
}  // namespace seqpar
