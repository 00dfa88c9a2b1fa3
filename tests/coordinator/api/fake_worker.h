// A worker that speaks FleetService over a real channel and runs nothing: ranks start, meet and finish at
// once, unless the test holds them.
#ifndef SEQPAR_TESTS_COORDINATOR_API_FAKE_WORKER_H_
#define SEQPAR_TESTS_COORDINATOR_API_FAKE_WORKER_H_

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/version.h"
#include "seqpar/v1/fleet.grpc.pb.h"

namespace seqpar {

class FakeWorker {
 public:
  struct Options {
    std::string node = "a";
    std::string version = kVersion;
    int64_t incarnation = 1;
    int devices = 4;
    int64_t highest_term = 0;
    int64_t memory_bytes = int64_t{1} << 30;  // of each device
    bool hold = false;                        // ranks meet and then wait for FinishAll or FailRank
    bool deaf = false;                        // to StartRanks, as where its daemon has forgotten the gang
    std::optional<int> logs_of_rank;  // asked for logs, it answers with this rank's instead of its own
    std::vector<v1::RunningRank> running;
    std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  };

  FakeWorker(const std::string& address, Options options)
      : options_(std::move(options)),
        stub_(v1::FleetService::NewStub(grpc::CreateChannel(address, options_.credentials))),
        stream_(stub_->Attach(&context_)) {
    v1::WorkerMessage message;
    v1::Hello* hello = message.mutable_hello();
    hello->set_node(options_.node);
    hello->set_incarnation(options_.incarnation);
    hello->set_highest_term(options_.highest_term);
    hello->set_version(options_.version);
    for (int i = 0; i < options_.devices; ++i) {
      *hello->add_devices() = Device();
      hello->mutable_devices(i)->set_memory_bytes(options_.memory_bytes);
    }
    hello->mutable_local()->set_latency(1e-6);
    hello->mutable_local()->set_bandwidth(1e10);
    for (const v1::RunningRank& rank : options_.running) *hello->add_running() = rank;
    Send(message);
    reader_ = std::thread([this] { Read(); });
  }
  // Breaks the stream.
  ~FakeWorker() {
    context_.TryCancel();
    reader_.join();
    if (!status_) stream_->Finish();
  }

  static v1::DeviceSpec Device() {
    v1::DeviceSpec device;
    device.set_kind("cpu");
    device.set_name("slot");
    device.set_memory_bytes(int64_t{1} << 30);
    device.set_threads(1);
    v1::DeviceRates* rates = device.mutable_rates();
    rates->set_gemm_flops(8e10);
    rates->set_attention_forward_flops(7e10);
    rates->set_attention_backward_flops(6e10);
    rates->set_copy_bytes(1e10);
    rates->set_peak_flops(1e11);
    return device;
  }

  // Waits until the coordinator has said so; false where the stream ended before.
  bool WaitWelcome() {
    return Wait([this] { return welcome_.term() > 0; });
  }
  bool WaitTables(int tables) {
    return Wait([this, tables] { return tables_ >= tables; });
  }
  bool WaitStarted(int ranks) {
    return Wait([this, ranks] { return static_cast<int>(ranks_.size()) >= ranks; });
  }
  bool WaitNotStarted() {
    return Wait([this] { return deaf_to_.has_value(); });
  }
  bool WaitHeartbeatAnswer(int64_t sequence) {
    return Wait([this, sequence] { return answered_ >= sequence; });
  }
  void WaitEnded() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return ended_; });
  }

  // How the stream ended. Call once.
  grpc::Status WaitStatus() {
    WaitEnded();
    status_ = stream_->Finish();
    return *status_;
  }

  v1::Welcome welcome() {
    std::lock_guard<std::mutex> lock(mutex_);
    return welcome_;
  }
  // The latest gang, and its ranks here.
  v1::GangId gang() {
    std::lock_guard<std::mutex> lock(mutex_);
    return gang_;
  }
  std::string staging_file() {
    std::lock_guard<std::mutex> lock(mutex_);
    return staging_file_;
  }
  std::vector<v1::RunningRank> Running() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<v1::RunningRank> running;
    for (const int rank : ranks_) {
      v1::RunningRank r;
      *r.mutable_gang() = gang_;
      r.set_rank(rank);
      running.push_back(r);
    }
    return running;
  }

  void Heartbeat(int64_t sequence) {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_sequence(sequence);
    Send(message);
  }
  // A heartbeat in which `rank` is so far.
  void Progress(int64_t sequence, const v1::GangId& gang, int rank, double percent) {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_sequence(sequence);
    v1::RankProgress* progress = message.mutable_heartbeat()->add_ranks();
    *progress->mutable_gang() = gang;
    progress->set_rank(rank);
    progress->set_phase(v1::JOB_PHASE_EXECUTE);
    progress->set_step(sequence);
    progress->set_percent(percent);
    Send(message);
  }
  // A heartbeat in which the ranks of the gang have so much of it behind them; each took so long for a
  // hundredth.
  void Work(int64_t sequence, const v1::GangId& gang, int percent, const std::vector<double>& seconds) {
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_sequence(sequence);
    for (size_t rank = 0; rank < seconds.size(); ++rank) {
      v1::RankProgress* progress = message.mutable_heartbeat()->add_ranks();
      *progress->mutable_gang() = gang;
      progress->set_rank(static_cast<int>(rank));
      progress->set_phase(v1::JOB_PHASE_EXECUTE);
      progress->set_step(sequence);
      progress->set_percent(percent);
      progress->mutable_totals()->set_flops(1e6 * percent);
      progress->mutable_totals()->set_flops_seconds(seconds[rank] * percent);
    }
    Send(message);
  }
  void FinishAll(const v1::GangId& gang, const std::set<int>& ranks) {
    for (const int rank : ranks) {
      v1::WorkerMessage message = Event(gang, rank, v1::RankEvent::FINISHED);
      v1::RankReport* report = message.mutable_event()->mutable_report();
      report->set_rank(rank);
      report->set_execute_seconds(1);
      report->set_compute_seconds(0.5);
      Send(message);
    }
  }
  void PutBlob(const v1::GangId& gang, int rank) {
    v1::WorkerMessage message;
    *message.mutable_blob()->mutable_gang() = gang;
    message.mutable_blob()->set_group("world");
    message.mutable_blob()->set_rank(rank);
    message.mutable_blob()->set_data("a blob");
    Send(message);
  }
  void SendTrace(const v1::GangId& gang, int rank, int64_t number, size_t name_bytes) {
    v1::WorkerMessage message;
    *message.mutable_trace()->mutable_gang() = gang;
    v1::TraceChunk* chunk = message.mutable_trace()->mutable_chunk();
    chunk->set_attempt(gang.attempt());
    chunk->set_rank(rank);
    chunk->set_number(number);
    chunk->add_activities()->set_name(std::string(name_bytes, 'x'));
    Send(message);
  }
  void FailRank(int rank, const std::string& why, int code = 14) {
    v1::WorkerMessage message = Event(gang(), rank, v1::RankEvent::FAILED);
    message.mutable_event()->mutable_error()->set_code(code);
    message.mutable_event()->mutable_error()->set_message(why);
    message.mutable_event()->set_root_cause(true);
    message.mutable_event()->set_phase(v1::JOB_PHASE_EXECUTE);
    Send(message);
  }

 private:
  template <typename Condition>
  bool Wait(Condition condition) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return ended_ || condition(); });
    return condition();
  }

  v1::WorkerMessage Event(const v1::GangId& gang, int rank, v1::RankEvent::Kind kind) {
    v1::WorkerMessage message;
    *message.mutable_event()->mutable_gang() = gang;
    message.mutable_event()->set_rank(rank);
    message.mutable_event()->set_kind(kind);
    return message;
  }

  void Send(const v1::WorkerMessage& message) {
    std::lock_guard<std::mutex> lock(write_mutex_);
    stream_->Write(message);
  }

  void Read() {
    v1::CoordinatorMessage message;
    while (stream_->Read(&message)) {
      Handle(message);
      changed_.notify_all();
    }
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  void Handle(const v1::CoordinatorMessage& message) {
    std::unique_lock<std::mutex> lock(mutex_);
    std::vector<v1::WorkerMessage> answers;
    if (message.has_welcome()) welcome_ = message.welcome();
    if (message.has_heartbeat()) answered_ = message.heartbeat().sequence();
    if (message.has_start() && options_.deaf) deaf_to_ = message.start().gang();
    if (message.has_start() && !options_.deaf) {
      gang_ = message.start().gang();
      staging_file_ = message.start().staging_file();
      ranks_.clear();
      for (const auto& placement : message.start().ranks()) {
        ranks_.insert(placement.rank());
        answers.push_back(Event(gang_, placement.rank(), v1::RankEvent::STARTED));
        v1::WorkerMessage blob;
        *blob.mutable_blob()->mutable_gang() = gang_;
        blob.mutable_blob()->set_group("world");
        blob.mutable_blob()->set_rank(placement.rank());
        blob.mutable_blob()->set_data(absl::StrCat("blob ", placement.rank()));
        answers.push_back(blob);
      }
    }
    bool finish = false;
    if (message.has_blobs()) {
      ++tables_;
      finish = !options_.hold;
    }
    if (message.has_stop()) {
      for (const int rank : message.stop().ranks())
        answers.push_back(Event(message.stop().gang(), rank, v1::RankEvent::STOPPED));
      ranks_.clear();
    }
    if (message.has_logs()) {
      v1::WorkerMessage log;
      log.mutable_logs()->set_query(message.logs().query());
      log.mutable_logs()->set_attempt(1);
      log.mutable_logs()->set_text("said by " + options_.node);
      for (const int rank : options_.logs_of_rank ? std::set<int>{*options_.logs_of_rank} : ranks_) {
        log.mutable_logs()->set_rank(rank);
        log.mutable_logs()->set_device(options_.node + "/0");
        answers.push_back(log);
      }
      log.mutable_logs()->set_attempt(0);
      log.mutable_logs()->set_last(true);
      answers.push_back(log);
    }
    const v1::GangId gang = gang_;
    const std::set<int> ranks = ranks_;
    lock.unlock();
    for (const v1::WorkerMessage& answer : answers) Send(answer);
    if (finish) FinishAll(gang, ranks);
  }

  const Options options_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::FleetService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream_;
  std::optional<grpc::Status> status_;
  std::mutex write_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  v1::Welcome welcome_;
  v1::GangId gang_;
  std::optional<v1::GangId> deaf_to_;
  std::string staging_file_;
  std::set<int> ranks_;
  int tables_ = 0;
  int64_t answered_ = 0;
  bool ended_ = false;
  std::thread reader_;
};

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COORDINATOR_API_FAKE_WORKER_H_
