// What clients and workers may say to a coordinator, in any order: its API and its engine over a real store,
// without gRPC and with a clock that stands still between steps. Whatever they say, every answer is a value
// or an error with a reason, and when all workers are lost and all jobs cancelled, every job has ended and no
// device is held.
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "coordinator/api/job_api.h"
#include "coordinator/fleet/hello.h"
#include "coordinator/fleet/version_rule.h"
#include "tests/fuzz/inputs.pb.h"
#include "tests/fuzz/message_target.h"
#include "tests/fuzz/quiet.h"

namespace seqpar {
namespace {

constexpr int kWorkersMax = 4;
constexpr int64_t kDevicesMax = 64;      // more take the planner seconds each
constexpr int64_t kTokensMax = 1 << 20;  // a plan's tokens are counted one by one
constexpr int64_t kLeaseMs = 6'000;

class NoWatcher : public Watcher {
 public:
  void Offer(const v1::Job&) override {}
  void End(const absl::Status&) override {}
  absl::Status Standing() const override { return absl::OkStatus(); }
};

class Coordinator {
 public:
  explicit Coordinator(const std::string& folder)
      : store_(*Store::Open(folder + "/state", {.reserve_bytes = 4096})),
        roots_(DataRoots::Create({{"data", folder}}).value()),
        work_(2),
        engine_({}, store_.get(), &roots_, &clock_, &work_, &hold_,
                [](const absl::Status&) { std::abort(); }),
        api_(&engine_, store_.get(), &roots_, folder + "/state", &clock_, &hold_, {}) {
    SEQPAR_CHECK(engine_.Start().ok());
  }
  ~Coordinator() {
    engine_.EndStreams();
    work_.Drain();
    engine_.Stop();
  }

  void Do(fuzz::CoordinatorStep step) {
    NameJobs(&step);
    // As on a wire, where strings are UTF-8.
    fuzz::CoordinatorStep received;
    if (!received.ParseFromString(step.SerializeAsString())) return;
    Handle(received);
    Settle();
  }

  // Every worker gone, every job cancelled.
  void End() {
    for (int worker = 0; worker < kWorkersMax; ++worker) Break(worker);
    for (const std::string& job : jobs_) engine_.Cancel(job);
    Settle();
    clock_.AdvanceMicros(kLeaseMs * 2000);
    for (const std::string& job : jobs_) {
      // What is being written may take its time; nothing else may.
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (engine_.ViewLive(job).has_value()) {
        SEQPAR_CHECK(std::chrono::steady_clock::now() < end);
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
    for (const v1::Node& node : engine_.Nodes(std::nullopt)) {
      for (const v1::NodeDevice& device : node.devices()) SEQPAR_CHECK(device.job().empty());
    }
    for (const std::string& job : jobs_) {
      v1::GetJobRequest get;
      get.set_id(job);
      const absl::StatusOr<v1::Job> ended = api_.GetJob(AnyCaller(), get);
      SEQPAR_CHECK(ended.ok());
      SEQPAR_CHECK(ended->state() >= v1::JOB_STATE_SUCCEEDED);
      SEQPAR_CHECK((ended->state() == v1::JOB_STATE_SUCCEEDED) == (ended->error().code() == 0));
    }
  }

 private:
  // A worker's stream. Asked for logs it says at once that it has none: nobody waits for it.
  class Link : public NodeLink {
   public:
    Link(Engine* engine, std::string node, int64_t stream)
        : engine_(engine), node_(std::move(node)), stream_(stream) {}
    void Send(v1::CoordinatorMessage message) override {
      if (!message.has_logs()) return;
      v1::WorkerMessage answer;
      answer.mutable_logs()->set_query(message.logs().query());
      answer.mutable_logs()->set_last(true);
      engine_->OnMessage(node_, stream_, answer).IgnoreError();
    }
    void Close(const absl::Status&) override {}

   private:
    Engine* const engine_;
    const std::string node_;
    const int64_t stream_;
  };
  struct Stream {
    std::string node;
    int64_t number = 0;  // 0: none
  };

  // All that was said so far has been handled: each of these waits for the engine.
  void Settle() { engine_.Nodes(std::nullopt); }

  // "j-2" is the second job that was created.
  void NameJobs(google::protobuf::Message* message) {
    const google::protobuf::Reflection* reflection = message->GetReflection();
    std::vector<const google::protobuf::FieldDescriptor*> fields;
    reflection->ListFields(*message, &fields);
    for (const auto* field : fields) {
      if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
        for (int i = 0; field->is_repeated() && i < reflection->FieldSize(*message, field); ++i) {
          NameJobs(reflection->MutableRepeatedMessage(message, field, i));
        }
        if (!field->is_repeated()) NameJobs(reflection->MutableMessage(message, field));
      } else if (field->type() == google::protobuf::FieldDescriptor::TYPE_STRING && !field->is_repeated()) {
        const std::string text = reflection->GetString(*message, field);
        const size_t index =
            text.size() == 3 && text[0] == 'j' && text[1] == '-' ? text[2] - '1' : jobs_.size();
        if (index < jobs_.size()) reflection->SetString(message, field, jobs_[index]);
      }
    }
  }

  void Say(const fuzz::Said& said) {
    if (said.worker() < 0 || said.worker() >= kWorkersMax) return;
    Stream& stream = streams_[said.worker()];
    if (stream.number != 0) {
      if (!engine_.OnMessage(stream.node, stream.number, said.message()).ok()) Break(said.worker());
      return;
    }
    // What the edge does with a first message.
    const v1::Hello& hello = said.message().hello();
    if (!said.message().has_hello() || !IsNodeName(hello.node()) ||
        hello.devices_size() > kDevicesMax / kWorkersMax ||
        !ServesWorker(VersionRule(), hello.node(), hello.version()).ok() || !CheckHello(hello).ok()) {
      return;
    }
    stream = {hello.node(), ++stream_number_};
    const absl::Status taken =
        engine_.OnHello(hello, stream.number, std::make_shared<Link>(&engine_, stream.node, stream.number));
    if (!taken.ok()) stream = {};
  }

  void Break(int worker) {
    if (worker < 0 || worker >= kWorkersMax || streams_[worker].number == 0) return;
    engine_.OnBroken(streams_[worker].node, streams_[worker].number);
    streams_[worker] = {};
  }

  template <typename Answer>
  static void Check(const absl::StatusOr<Answer>& answer) {
    if (answer.ok()) return;
    SEQPAR_CHECK(!answer.status().message().empty());
    if (absl::IsInvalidArgument(answer.status())) SEQPAR_CHECK(!ViolationsOf(answer.status()).empty());
  }

  void Create(const v1::CreateJobRequest& request) {
    if (request.job().input().tokens() > kTokensMax || jobs_.size() == 9) return;
    const absl::StatusOr<v1::Job> job = api_.CreateJob(AnyCaller(), request);
    Check(job);
    if (job.ok() && !request.validate_only()) jobs_.push_back(job->id());
  }

  void Plan(const v1::PlanJobRequest& request) {
    if (request.has_cluster()) return;  // plan_request.cc
    Check(api_.PlanJob(AnyCaller(), request));
  }

  void Handle(const fuzz::CoordinatorStep& step) {
    const Caller caller = AnyCaller();
    switch (step.step_case()) {
      case fuzz::CoordinatorStep::kSaid:
        return Say(step.said());
      case fuzz::CoordinatorStep::kBroken:
        return Break(step.broken());
      case fuzz::CoordinatorStep::kAdvanceMs:
        if (step.advance_ms() > 0 && step.advance_ms() < 3'600'000)
          clock_.AdvanceMicros(step.advance_ms() * 1000);
        return;
      case fuzz::CoordinatorStep::kCreate:
        return Create(step.create());
      case fuzz::CoordinatorStep::kGet:
        return Check(api_.GetJob(caller, step.get()));
      case fuzz::CoordinatorStep::kList:
        return Check(api_.ListJobs(caller, step.list()));
      case fuzz::CoordinatorStep::kWatch:
        return api_.WatchJob(caller, step.watch(), std::make_shared<NoWatcher>()).IgnoreError();
      case fuzz::CoordinatorStep::kCancel:
        return Check(api_.CancelJob(caller, step.cancel()));
      case fuzz::CoordinatorStep::kPlan:
        return Plan(step.plan());
      case fuzz::CoordinatorStep::kLogs:
        return Check(api_.GetJobLogs(caller, step.logs()));
      case fuzz::CoordinatorStep::kTrace:
        return Check(api_.GetJobTrace(caller, step.trace()));
      case fuzz::CoordinatorStep::kNodes:
        return Check(api_.ListNodes(caller, step.nodes()));
      case fuzz::CoordinatorStep::kNode:
        return Check(api_.GetNode(caller, step.node()));
      case fuzz::CoordinatorStep::kDrain:
        return Check(api_.DrainNode(caller, step.drain()));
      case fuzz::CoordinatorStep::kBackup:
        return Check(api_.BackupStore(caller, step.backup()));
      case fuzz::CoordinatorStep::STEP_NOT_SET:
        return;
    }
  }

  FakeClock clock_;
  const std::unique_ptr<Store> store_;
  const DataRoots roots_;
  TestHold hold_{{}};
  TaskPool work_;
  Engine engine_;
  JobApi api_;
  Stream streams_[kWorkersMax];
  int64_t stream_number_ = 0;
  std::vector<std::string> jobs_;
};

void Tell(const fuzz::CoordinatorStory& story) {
  BeQuiet();
  // In memory: the store syncs at each step.
  const std::string folder = absl::StrCat("/dev/shm/seqpar-fuzz-", getpid());
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  {
    Coordinator coordinator(folder);
    for (const fuzz::CoordinatorStep& step : story.steps()) coordinator.Do(step);
    coordinator.End();
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace seqpar

SEQPAR_FUZZ_MESSAGE(seqpar::fuzz::CoordinatorStory, seqpar::Tell)
