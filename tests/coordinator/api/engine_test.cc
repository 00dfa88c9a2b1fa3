// What the engine owes to the store: nothing is seen before it is written, and nothing after it cannot be.
#include "coordinator/engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/retry.h"
#include "common/base/status.h"
#include "tests/coordinator/job_machine/samples.h"
#include "tests/support/temp_folder.h"

namespace seqpar {
namespace {

// A store whose writes the test can see and stop.
class WatchedStore : public Store {
 public:
  explicit WatchedStore(const std::string& folder) : store_(*Store::Open(folder)) {}

  int64_t term() const override { return store_->term(); }
  bool restored() const override { return store_->restored(); }
  absl::Status RaiseTerm(int64_t seen) override { return store_->RaiseTerm(seen); }
  int64_t NewSequence() override { return store_->NewSequence(); }
  bool has_reserve() const override { return has_reserve_; }
  void GiveUpReserve() override { has_reserve_ = false; }
  absl::Status KeepReserve() override {
    if (full) return MakeError(absl::StatusCode::kResourceExhausted, reason::kStorage, "disk full");
    has_reserve_ = true;
    return absl::OkStatus();
  }
  absl::Status Backup(const std::string& file) override { return store_->Backup(file); }
  absl::Status Write(const WriteBatch& batch, std::vector<std::string>* taken) override {
    if (broken) return MakeError(absl::StatusCode::kInternal, reason::kStorage, "input/output error");
    if (full && has_reserve_) {
      return MakeError(absl::StatusCode::kResourceExhausted, reason::kStorage, "disk full");
    }
    const absl::Status written = store_->Write(batch, taken);
    std::lock_guard<std::mutex> lock(mutex_);
    for (const AttemptRow& row : batch.attempts) attempts_.insert(row.attempt);
    for (const BlobRow& row : batch.blobs) blobs_.insert(row.rank);
    return written;
  }
  absl::StatusOr<std::optional<JobRow>> FindByRequestId(const std::string& id) override {
    return store_->FindByRequestId(id);
  }
  absl::StatusOr<std::optional<JobRow>> Get(const std::string& id) override { return store_->Get(id); }
  absl::StatusOr<std::vector<JobRow>> List(int64_t before, int limit, const std::vector<int>& states,
                                           const std::optional<std::string>& tenant) override {
    return store_->List(before, limit, states, tenant);
  }
  absl::StatusOr<std::vector<JobRow>> LoadLive() override { return store_->LoadLive(); }
  absl::StatusOr<StoredAttempt> LoadAttempt(const std::string& job, int attempt) override {
    return store_->LoadAttempt(job, attempt);
  }
  absl::StatusOr<std::vector<TraceRow>> LoadTraces(const std::string& job, int attempt, int rank,
                                                   int64_t number, int64_t bytes) override {
    return store_->LoadTraces(job, attempt, rank, number, bytes);
  }
  absl::StatusOr<std::vector<std::string>> LoadDrains() override { return store_->LoadDrains(); }
  absl::StatusOr<std::string> Setting(const std::string& name) override { return store_->Setting(name); }

  bool HasAttempt(int attempt) {
    std::lock_guard<std::mutex> lock(mutex_);
    return attempts_.count(attempt) != 0;
  }
  bool HasBlob(int rank) {
    std::lock_guard<std::mutex> lock(mutex_);
    return blobs_.count(rank) != 0;
  }

  std::atomic<bool> broken{false};
  std::atomic<bool> full{false};  // but for the reserve

 private:
  std::atomic<bool> has_reserve_{true};
  const std::unique_ptr<Store> store_;
  std::mutex mutex_;
  std::set<int> attempts_, blobs_;
};

// Notes for each message whether what it follows from was on disk.
class CheckingLink : public NodeLink {
 public:
  explicit CheckingLink(WatchedStore* store) : store_(store) {}
  void Send(v1::CoordinatorMessage message) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (message.has_start()) started_on_disk_ = store_->HasAttempt(message.start().gang().attempt());
    if (message.has_start()) gang_ = message.start().gang();
    if (message.has_heartbeat()) blob_on_disk_ = store_->HasBlob(0);
    seen_.insert(message.message_case());
    changed_.notify_all();
  }
  void Close(const absl::Status&) override {}
  void WaitFor(v1::CoordinatorMessage::MessageCase kind) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return seen_.count(kind) != 0; });
  }
  bool started_on_disk() {
    std::lock_guard<std::mutex> lock(mutex_);
    return started_on_disk_;
  }
  bool blob_on_disk() {
    std::lock_guard<std::mutex> lock(mutex_);
    return blob_on_disk_;
  }
  v1::GangId gang() {
    std::lock_guard<std::mutex> lock(mutex_);
    return gang_;
  }

 private:
  WatchedStore* const store_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<v1::CoordinatorMessage::MessageCase> seen_;
  bool started_on_disk_ = false, blob_on_disk_ = false;
  v1::GangId gang_;
};

class EngineTest : public ::testing::Test {
 protected:
  EngineTest()
      : store_(folder_.path()),
        hold_({}),
        work_(2),
        engine_(Config(), &store_, &roots_, &clock_, &work_, &hold_,
                [this](const absl::Status&) { ++fatal_; }),
        link_(std::make_shared<CheckingLink>(&store_)) {
    EXPECT_TRUE(engine_.Start().ok());
    v1::Hello hello;
    hello.set_node("a");
    v1::DeviceSpec* device = hello.add_devices();
    device->set_kind("cpu");
    device->set_memory_bytes(int64_t{1} << 30);
    device->set_threads(1);
    v1::DeviceRates* rates = device->mutable_rates();
    rates->set_gemm_flops(1e10);
    rates->set_attention_forward_flops(1e10);
    rates->set_attention_backward_flops(1e10);
    rates->set_copy_bytes(1e10);
    rates->set_peak_flops(1e10);
    hello.mutable_local()->set_latency(1e-6);
    hello.mutable_local()->set_bandwidth(1e10);
    engine_.OnHello(hello, 1, link_);
    link_->WaitFor(v1::CoordinatorMessage::kWelcome);
  }
  ~EngineTest() override {
    work_.Drain();
    engine_.Stop();
  }

  static constexpr int kMaxJobs = 5;
  static EngineConfig Config() {
    EngineConfig config;
    config.max_live_jobs = kMaxJobs;
    return config;
  }

  static JobRecord Record(const std::string& id) {
    JobRecord record;
    record.id = id;
    record.request_id = id;
    record.spec = SampleSpec();
    record.spec.output_hidden_states = false;
    record.create_us = 1;
    return record;
  }

  TempFolder folder_;
  WatchedStore store_;
  const DataRoots roots_;
  FakeClock clock_;
  TestHold hold_;
  TaskPool work_;
  std::atomic<int> fatal_{0};
  Engine engine_;
  std::shared_ptr<CheckingLink> link_;
};

TEST_F(EngineTest, AnAttemptIsOnDiskBeforeItsRanksStart) {
  ASSERT_TRUE(engine_.Submit(Record("j-1"), "bytes").ok());
  link_->WaitFor(v1::CoordinatorMessage::kStart);
  EXPECT_TRUE(link_->started_on_disk());
}

TEST_F(EngineTest, WhatAnAnsweredHeartbeatCoversIsOnDisk) {
  ASSERT_TRUE(engine_.Submit(Record("j-1"), "bytes").ok());
  link_->WaitFor(v1::CoordinatorMessage::kStart);
  v1::WorkerMessage blob, heartbeat;
  *blob.mutable_blob()->mutable_gang() = link_->gang();
  blob.mutable_blob()->set_group("world");
  blob.mutable_blob()->set_data("blob");
  heartbeat.mutable_heartbeat()->set_sequence(1);
  engine_.OnMessage("a", 1, blob);
  engine_.OnMessage("a", 1, heartbeat);
  link_->WaitFor(v1::CoordinatorMessage::kHeartbeat);
  EXPECT_TRUE(link_->blob_on_disk());
}

TEST_F(EngineTest, NothingIsPromisedOnceTheStoreIsGone) {
  ASSERT_TRUE(engine_.Submit(Record("j-1"), "bytes").ok());
  link_->WaitFor(v1::CoordinatorMessage::kStart);
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
  link_->WaitFor(v1::CoordinatorMessage::kStart);
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

}  // namespace
}  // namespace seqpar
