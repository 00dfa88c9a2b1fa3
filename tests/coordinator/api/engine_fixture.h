// An engine with a node of its own, and a store and a node's stream that the test sees.
#ifndef SEQPAR_TESTS_COORDINATOR_API_ENGINE_FIXTURE_H_
#define SEQPAR_TESTS_COORDINATOR_API_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "coordinator/engine/engine.h"
#include "coordinator/store/forwarding_store.h"
#include "tests/coordinator/job_machine/samples.h"
#include "tests/support/temp_folder.h"

namespace seqpar {

// A store whose writes the test can see and stop.
class WatchedStore : public ForwardingStore {
 public:
  explicit WatchedStore(const std::string& folder) : ForwardingStore(*Store::Open(folder)) {}

  bool has_reserve() const override { return has_reserve_; }
  void GiveUpReserve() override { has_reserve_ = false; }
  absl::Status KeepReserve() override {
    if (full) return MakeError(absl::StatusCode::kResourceExhausted, reason::kStorage, "disk full");
    has_reserve_ = true;
    return absl::OkStatus();
  }
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
    if (message.has_heartbeat()) answered_ = message.heartbeat().sequence();
    seen_.insert(message.message_case());
    changed_.notify_all();
  }
  void Close(const absl::Status&) override {}
  // False where nothing of the kind came within half a minute.
  bool WaitFor(v1::CoordinatorMessage::MessageCase kind) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return seen_.count(kind) != 0; });
  }
  bool WaitAnswered(int64_t heartbeat) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return answered_ >= heartbeat; });
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
  static constexpr auto kPatience = std::chrono::seconds(30);

  WatchedStore* const store_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<v1::CoordinatorMessage::MessageCase> seen_;
  bool started_on_disk_ = false, blob_on_disk_ = false;
  int64_t answered_ = 0;
  v1::GangId gang_;
};

// One start of an engine. `store`: the folder of its store; "": its own.
class EngineHarness {
 public:
  explicit EngineHarness(EngineConfig config = Config(), EngineHooks hooks = {}, int devices = 1,
                         const std::string& store = "", int64_t now_us = 1'000'000)
      : store_(store.empty() ? folder_.path() : store),
        clock_(now_us),
        hold_({}),
        work_(2),
        engine_(
            config, &store_, &roots_, &clock_, &work_, &hold_, [this](const absl::Status&) { ++fatal_; },
            std::move(hooks)),
        link_(std::make_shared<CheckingLink>(&store_)) {
    EXPECT_TRUE(engine_.Start().ok());
    v1::Hello hello;
    hello.set_node("a");
    for (int i = 0; i < devices; ++i) *hello.add_devices() = Device();
    hello.mutable_local()->set_latency(1e-6);
    hello.mutable_local()->set_bandwidth(1e10);
    EXPECT_TRUE(engine_.OnHello(hello, 1, link_).ok());
    EXPECT_TRUE(link_->WaitFor(v1::CoordinatorMessage::kWelcome));
  }
  ~EngineHarness() {
    work_.Drain();
    engine_.Stop();
  }

  static constexpr int kMaxJobs = 5;
  static EngineConfig Config() {
    EngineConfig config;
    config.max_live_jobs = kMaxJobs;
    return config;
  }

  static v1::DeviceSpec Device() {
    v1::DeviceSpec device;
    device.set_kind("cpu");
    device.set_memory_bytes(int64_t{1} << 30);
    device.set_threads(1);
    v1::DeviceRates* rates = device.mutable_rates();
    rates->set_gemm_flops(1e10);
    rates->set_attention_forward_flops(1e10);
    rates->set_attention_backward_flops(1e10);
    rates->set_copy_bytes(1e10);
    rates->set_peak_flops(1e10);
    return device;
  }

  static JobRecord Record(const std::string& id, const std::string& tenant = "") {
    JobRecord record;
    record.id = id;
    record.tenant = tenant;
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

class EngineTest : public ::testing::Test, protected EngineHarness {
 protected:
  using EngineHarness::EngineHarness;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COORDINATOR_API_ENGINE_FIXTURE_H_
