#include "tests/bench/load/clients.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "seqpar/v1/service.grpc.pb.h"

namespace seqpar::load {
namespace {

constexpr int kWatchersPerConnection = 50;
constexpr int kPageSize = 50;
constexpr auto kCallTime = std::chrono::seconds(60);

std::shared_ptr<grpc::Channel> Connect(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetMaxReceiveMessageSize(256 << 20);
  return MakeChannel(server, {}, arguments);
}

void SetDeadline(grpc::ClientContext* context) {
  context->set_deadline(std::chrono::system_clock::now() + kCallTime);
  context->set_wait_for_ready(true);
}

}  // namespace

v1::Job SampleJob(int ranks, bool striped) {
  v1::Job job;
  job.set_name(striped ? "striped" : "load");
  v1::ModelConfig* config = job.mutable_config();
  config->set_hidden_size(4096);
  config->set_num_attention_heads(32);
  config->set_num_key_value_heads(8);
  config->set_intermediate_size(14336);
  config->set_num_hidden_layers(32);
  job.set_dtype(v1::DATA_TYPE_BFLOAT16);
  job.mutable_weights()->set_seed(1);
  job.mutable_input()->set_seed(2);
  job.mutable_input()->set_tokens(striped ? 4'000'000 : 1'000'000);
  job.mutable_workers()->set_min(ranks);
  job.mutable_workers()->set_max(ranks);
  if (striped) {
    job.mutable_parallelism()->set_strategy(v1::STRATEGY_RING);
    job.mutable_parallelism()->set_layout(v1::LAYOUT_STRIPED);
    job.set_priority(1);
  }
  (*job.mutable_labels())["bench"] = "load";
  return job;
}

// Reads until its job has ended, and is then opened anew on another; or never reads. Deletes itself.
class Clients::WatchStream : public grpc::ClientReadReactor<v1::JobEvent> {
 public:
  WatchStream(Clients* clients, int watcher, std::shared_ptr<grpc::Channel> channel, const std::string& id)
      : token_(&clients->outstanding_),
        clients_(clients),
        watcher_(watcher),
        stub_(v1::JobService::NewStub(std::move(channel))) {
    request_.set_id(id);
    context_.set_wait_for_ready(true);
    stub_->async()->WatchJob(&context_, &request_, this);
  }
  void Begin(bool silent) {
    if (!silent) StartRead(&event_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    ++clients_->events_;
    StartRead(&event_);
  }
  void OnDone(const grpc::Status&) override {
    --clients_->watching_;
    // Freed after the lock, in which the destructor waits for it.
    const std::unique_ptr<WatchStream> self(this);
    MutexLock lock(clients_->mutex_);
    clients_->streams_[watcher_] = nullptr;
    clients_->OpenWatch(watcher_);
  }

 private:
  const Outstanding::Token token_;
  Clients* const clients_;
  const int watcher_;
  const std::unique_ptr<v1::JobService::Stub> stub_;
  grpc::ClientContext context_;
  v1::WatchJobRequest request_;
  v1::JobEvent event_;
};

Clients::Clients(const ClientOptions& options) : options_(options) {
  const int connections = 1 + (options.watchers + kWatchersPerConnection - 1) / kWatchersPerConnection;
  for (int i = 0; i < connections; ++i) channels_.push_back(Connect(options.server));
  MutexLock lock(mutex_);
  streams_.resize(options.watchers);
}

Clients::~Clients() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    for (WatchStream* stream : streams_) {
      if (stream != nullptr) stream->Cancel();
    }
  }
  for (std::thread& thread : threads_) thread.join();
  outstanding_.WaitForNone();
}

std::string Clients::last_error() const {
  MutexLock lock(mutex_);
  return last_error_;
}

void Clients::Failed(const std::string& what) {
  if (!expected_) return;
  ++errors_;
  MutexLock lock(mutex_);
  last_error_ = what;
}

std::string Clients::Submit(const v1::Job& job) {
  const auto stub = v1::JobService::NewStub(channels_[0]);
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::CreateJobRequest request;
  *request.mutable_job() = job;
  v1::Job created;
  const TimePoint begin = SteadyClock::now();
  const grpc::Status status = stub->CreateJob(&context, request, &created);
  if (!status.ok()) {
    Failed(absl::StrCat("submit: ", status.error_message()));
    return "";
  }
  if (expected_) submits_.Add(SecondsSince(begin));
  MutexLock lock(mutex_);
  ids_.push_back(created.id());
  return created.id();
}

int64_t Clients::Fill(int jobs, int threads) {
  std::atomic<int> left{jobs};
  std::atomic<int64_t> failed{0};
  std::vector<std::thread> fillers;
  for (int i = 0; i < threads; ++i) {
    fillers.emplace_back([&] {
      const v1::Job job = SampleJob(options_.ranks, false);
      while (--left >= 0) failed += Submit(job).empty();
    });
  }
  for (std::thread& filler : fillers) filler.join();
  return failed;
}

void Clients::Watch() {
  MutexLock lock(mutex_);
  for (int i = 0; i < options_.watchers; ++i) OpenWatch(i);
}

// The jobs one after the other, so that some run and most wait, as users' do.
void Clients::OpenWatch(int watcher) {
  if (stopping_ || ids_.empty()) return;
  const std::string& id = ids_[next_id_++ % ids_.size()];
  auto* stream = new WatchStream(this, watcher, channels_[1 + watcher / kWatchersPerConnection], id);
  streams_[watcher] = stream;
  ++watching_;
  stream->Begin(watcher < options_.silent);
}

void Clients::Begin() {
  threads_.emplace_back([this] { SubmitLoop(); });
  threads_.emplace_back([this] { ListLoop(); });
}

bool Clients::Pause(double seconds) {
  MutexLock lock(mutex_);
  const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; };
  return !changed_.wait_for(mutex_, std::chrono::duration<double>(seconds), stopping);
}

void Clients::SubmitLoop() {
  const v1::Job job = SampleJob(options_.ranks, false);
  while (Pause(1 / options_.submits)) Submit(job);
}

void Clients::ListLoop() {
  const auto stub = v1::JobService::NewStub(channels_[0]);
  std::string token;
  while (Pause(1 / options_.lists)) {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::ListJobsRequest request;
    request.set_page_size(kPageSize);
    request.set_page_token(token);
    v1::ListJobsResponse response;
    const TimePoint begin = SteadyClock::now();
    const grpc::Status status = stub->ListJobs(&context, request, &response);
    if (!status.ok()) {
      Failed(absl::StrCat("list: ", status.error_message()));
    } else if (expected_) {
      lists_.Add(SecondsSince(begin));
    }
    token = status.ok() ? response.next_page_token() : "";
  }
}

}  // namespace seqpar::load
