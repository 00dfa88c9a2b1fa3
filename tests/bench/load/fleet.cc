#include "tests/bench/load/fleet.h"

#include <grpcpp/grpcpp.h>

#include <deque>
#include <queue>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/version.h"
#include "common/rpc/channel.h"
#include "seqpar/v1/fleet.grpc.pb.h"
#include "tests/bench/load/gangs.h"

namespace seqpar::load {
namespace {

using Messages = std::vector<v1::WorkerMessage>;
constexpr auto kRedialMin = std::chrono::milliseconds(50), kRedialMax = std::chrono::milliseconds(500);
constexpr auto kLook = std::chrono::milliseconds(250);  // at a node that was not welcomed yet

// As worker/daemon/fleet_client.cc has them.
std::shared_ptr<grpc::Channel> Connect(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 250);
  arguments.SetMaxReceiveMessageSize(256 << 20);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return MakeChannel(server, {}, arguments);
}

v1::DeviceSpec Device() {
  v1::DeviceSpec device;
  device.set_kind("cpu");
  device.set_name("simulated");
  device.set_memory_bytes(int64_t{80} << 30);
  device.set_threads(1);
  v1::DeviceRates* rates = device.mutable_rates();
  rates->set_gemm_flops(6e14);
  rates->set_attention_forward_flops(6e14);
  rates->set_attention_backward_flops(4e14);
  rates->set_copy_bytes(2e12);
  rates->set_peak_flops(1e15);
  return device;
}

}  // namespace

// A node, over as many streams as it takes.
class SimNode {
 public:
  SimNode(const std::string& name, Fleet::Shared* shared)
      : name_(name),
        shared_(shared),
        stub_(v1::FleetService::NewStub(Connect(shared->options.server))),
        gangs_(shared->options.job_seconds),
        random_(static_cast<uint32_t>(std::hash<std::string>()(name))) {}
  ~SimNode();

  // Does what is due; when to come again.
  SteadyClock::duration Tick();

 private:
  // One stream. Deletes itself when all of it is over.
  class Stream : public grpc::ClientBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage> {
   public:
    explicit Stream(SimNode* node) : node_(node) {
      node->stub_->async()->Attach(&context_, this);
      AddHold();  // writes come from outside of reactions, while the stream is its node's
    }
    void Begin() {
      StartRead(&incoming_);
      StartCall();
    }
    void Write(v1::WorkerMessage message) {
      outgoing_ = std::move(message);
      StartWrite(&outgoing_);
    }
    void Cancel() { context_.TryCancel(); }
    void OnReadDone(bool ok) override {
      if (!ok) return node_->OnEnd();
      node_->OnMessage(incoming_);
      StartRead(&incoming_);
    }
    void OnWriteDone(bool ok) override { node_->OnWritten(ok); }
    // Its context goes before the node, which holds the channel still: the last one of a process must not be
    // let go in a thread of gRPC's, which would wait for itself and go on with a queue that it has freed.
    void OnDone(const grpc::Status&) override {
      SimNode* const node = node_;
      delete this;
      node->OnGone();
    }

   private:
    SimNode* const node_;
    grpc::ClientContext context_;
    v1::CoordinatorMessage incoming_;
    v1::WorkerMessage outgoing_;
  };

  void OnMessage(const v1::CoordinatorMessage& message);
  void OnWritten(bool ok);
  void OnEnd();
  void OnGone();
  v1::WorkerMessage Hello() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void HandleWelcome(const v1::Welcome& welcome) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Beat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Send(Messages messages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename Change>
  void Count(const Change& change) {
    MutexLock lock(shared_->mutex);
    change(&shared_->counts);
  }

  const std::string name_;
  Fleet::Shared* const shared_;
  const std::unique_ptr<v1::FleetService::Stub> stub_;
  Mutex mutex_;
  ConditionVariable gone_changed_;
  Gangs gangs_ ABSL_GUARDED_BY(mutex_);
  std::minstd_rand random_ ABSL_GUARDED_BY(mutex_);
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;  // it may be written to
  bool gone_ ABSL_GUARDED_BY(mutex_) = true;          // there is no stream any more
  bool writing_ ABSL_GUARDED_BY(mutex_) = false, welcomed_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<v1::WorkerMessage> outbox_ ABSL_GUARDED_BY(mutex_);
  std::chrono::milliseconds period_ ABSL_GUARDED_BY(mutex_){1000};
  int64_t term_ ABSL_GUARDED_BY(mutex_) = 0, sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::pair<int64_t, TimePoint>> sent_ ABSL_GUARDED_BY(mutex_);  // heartbeats without an answer
};

SimNode::~SimNode() {
  MutexLock lock(mutex_);
  if (stream_ != nullptr) stream_->Cancel();
  while (!gone_) gone_changed_.wait(mutex_);
}

SteadyClock::duration SimNode::Tick() {
  MutexLock lock(mutex_);
  if (gone_) {
    gone_ = false;
    writing_ = welcomed_ = false;
    outbox_.clear();
    sent_.clear();
    stream_ = new Stream(this);
    stream_->Begin();
    Send({Hello()});
    return kLook;
  }
  if (!welcomed_) {
    return std::chrono::milliseconds(
        std::uniform_int_distribution<int64_t>(kRedialMin.count(), kRedialMax.count())(random_));
  }
  Beat();
  return period_;
}

v1::WorkerMessage SimNode::Hello() const {
  v1::WorkerMessage message;
  v1::Hello* hello = message.mutable_hello();
  hello->set_node(name_);
  hello->set_incarnation(1);
  hello->set_version(kVersion);
  hello->set_highest_term(term_);
  (*hello->mutable_labels())["rack"] = name_.substr(0, name_.size() - 1);
  for (int i = 0; i < shared_->options.devices; ++i) *hello->add_devices() = Device();
  hello->mutable_local()->set_latency(2e-6);
  hello->mutable_local()->set_bandwidth(4e11);
  gangs_.AddRunning(hello);
  return message;
}

void SimNode::Beat() {
  if (writing_ && !outbox_.empty()) return Count([](FleetCounts* counts) { ++counts->late_beats; });
  int64_t finished = 0;
  Messages messages = gangs_.Finish(++sequence_, &finished);
  v1::WorkerMessage message;
  v1::Heartbeat* heartbeat = message.mutable_heartbeat();
  heartbeat->set_sequence(sequence_);
  heartbeat->set_sent_us(
      std::chrono::duration_cast<std::chrono::microseconds>(SteadyClock::now().time_since_epoch()).count());
  gangs_.AddProgress(heartbeat);
  messages.push_back(std::move(message));
  sent_.emplace_back(sequence_, SteadyClock::now());
  Send(std::move(messages));
  if (finished > 0) Count([finished](FleetCounts* counts) { counts->ranks_finished += finished; });
}

void SimNode::Send(Messages messages) {
  for (v1::WorkerMessage& message : messages) outbox_.push_back(std::move(message));
  if (writing_ || stream_ == nullptr || outbox_.empty()) return;
  writing_ = true;
  stream_->Write(std::move(outbox_.front()));
  outbox_.pop_front();
}

void SimNode::OnWritten(bool ok) {
  MutexLock lock(mutex_);
  writing_ = false;
  if (ok) Send({});
}

void SimNode::HandleWelcome(const v1::Welcome& welcome) {
  term_ = welcome.term();
  period_ = std::chrono::milliseconds(welcome.heartbeat_ms());
  welcomed_ = true;
  int64_t resumed = 0;
  Send(gangs_.Keep(welcome, &resumed));
  Count([resumed, term = term_](FleetCounts* counts) {
    if (term > counts->term) counts->attached = 0;
    counts->term = std::max(counts->term, term);
    counts->attached += term == counts->term;
    counts->ranks_resumed += resumed;
  });
}

void SimNode::OnMessage(const v1::CoordinatorMessage& message) {
  MutexLock lock(mutex_);
  const auto bytes = static_cast<int64_t>(message.ByteSizeLong());
  int64_t started = 0, stopped = 0;
  if (message.has_welcome()) HandleWelcome(message.welcome());
  if (message.has_start()) Send(gangs_.Start(message.start(), &started));
  if (message.has_blobs()) gangs_.Meet(message.blobs().gang());
  if (message.has_stop()) Send(gangs_.Stop(message.stop(), &stopped));
  if (message.has_heartbeat()) {
    while (!sent_.empty() && sent_.front().first <= message.heartbeat().sequence()) {
      shared_->answers.Add(SecondsSince(sent_.front().second));
      sent_.pop_front();
    }
    gangs_.Confirm(message.heartbeat().sequence());
  }
  Count([&](FleetCounts* counts) {
    counts->ranks_started += started;
    counts->ranks_stopped += stopped;
    counts->largest_message_bytes = std::max(counts->largest_message_bytes, bytes);
    if (!message.has_start() || bytes <= counts->largest_start_bytes) return;
    counts->largest_start_bytes = bytes;
    counts->largest_start_ranks = message.start().plan().ranks_size();
  });
}

void SimNode::OnEnd() {
  Stream* ended = nullptr;
  {
    MutexLock lock(mutex_);
    ended = std::exchange(stream_, nullptr);
    MutexLock counts_lock(shared_->mutex);
    shared_->counts.attached -= welcomed_ && term_ == shared_->counts.term;
    if (shared_->expected && !shared_->stopping) shared_->counts.streams_ended += welcomed_;
    welcomed_ = false;
  }
  ended->RemoveHold();
}

void SimNode::OnGone() {
  MutexLock lock(mutex_);
  gone_ = true;
  gone_changed_.notify_all();
}

Fleet::Fleet(const FleetOptions& options) {
  shared_.options = options;
  for (int i = 0; i < options.nodes; ++i) {
    nodes_.push_back(std::make_unique<SimNode>(absl::StrCat("node-", 10000 + i), &shared_));
  }
  beater_ = std::thread([this] { Beat(); });
}

Fleet::~Fleet() {
  {
    MutexLock lock(shared_.mutex);
    shared_.stopping = true;
    shared_.changed.notify_all();
  }
  beater_.join();
  nodes_.clear();
}

void Fleet::SetExpected(bool expected) {
  MutexLock lock(shared_.mutex);
  shared_.expected = expected;
}

FleetCounts Fleet::counts() const {
  MutexLock lock(shared_.mutex);
  return shared_.counts;
}

void Fleet::Beat() {
  // Who is due next. Spread over the first second, as nodes of a cluster are.
  using Due = std::pair<TimePoint, size_t>;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    due.emplace(SteadyClock::now() + std::chrono::microseconds(1'000'000 * i / nodes_.size()), i);
  }
  while (!due.empty()) {
    const auto [time, node] = due.top();
    due.pop();
    {
      MutexLock lock(shared_.mutex);
      const auto stopping = [this]()
                                ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared_.mutex) { return shared_.stopping; };
      if (shared_.changed.wait_for(shared_.mutex, time - SteadyClock::now(), stopping)) return;
    }
    due.emplace(SteadyClock::now() + nodes_[node]->Tick(), node);
  }
}

}  // namespace seqpar::load
