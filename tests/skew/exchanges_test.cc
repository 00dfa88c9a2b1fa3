// Replays what the last release's processes said to each other (tests/skew/release/exchanges): today's code
// must understand every field of it, and do what it asks for.
#include <gmock/gmock.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/job/proto.h"
#include "coordinator/engine/engine.h"
#include "coordinator/engine/record_codec.h"
#include "coordinator/fleet/version_rule.h"
#include "coordinator/store/stored.pb.h"
#include "coordinator/validate/validate.h"
#include "google/rpc/error_details.pb.h"
#include "seqpar/v1/executor.pb.h"
#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/service.pb.h"
#include "tests/skew/exchange_file.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/daemon/agent_fakes.h"
#include "worker/executor/channel.h"

namespace seqpar {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string Folder() {
  return absl::StrCat(std::getenv("SEQPAR_SOURCE_DIR"), "/tests/skew/release/exchanges/");
}

std::vector<std::string> Files() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(Folder())) files.push_back(entry.path());
  return files;
}

// Today's message of that name; null where there is none.
std::unique_ptr<Message> MessageOf(const std::string& type) {
  // The files must be linked for the generated pool to have them.
  for (const Descriptor* linked :
       {v1::CreateJobRequest::descriptor(), v1::ToExecutor::descriptor(), stored::Job::descriptor()}) {
    if (linked == nullptr) return nullptr;
  }
  const Descriptor* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(type);
  if (descriptor == nullptr) return nullptr;
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
}

// Paths of the messages within `message` that have fields which today's code does not know.
void FindUnknown(const Message& message, const std::string& path, std::vector<std::string>* found) {
  const google::protobuf::Reflection* reflection = message.GetReflection();
  const auto& unknown = reflection->GetUnknownFields(message);
  for (int i = 0; i < unknown.field_count(); ++i) {
    found->push_back(absl::StrCat(path, " field ", unknown.field(i).number()));
  }
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    const std::string name = absl::StrCat(path, ".", std::string(field->name()));
    if (!field->is_repeated()) {
      FindUnknown(reflection->GetMessage(message, field), name, found);
      continue;
    }
    for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
      FindUnknown(reflection->GetRepeatedMessage(message, field, i), absl::StrCat(name, "[", i, "]"), found);
    }
  }
}

std::string Bytes(const Message& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  message.SerializeToCodedStream(&coded);
  coded.Trim();
  return bytes;
}

TEST(Exchanges, EveryMessageMeansWhatItMeant) {
  int messages = 0;
  for (const std::string& file : Files()) {
    for (const Exchanged& sent : ReadExchanges(file)) {
      SCOPED_TRACE(absl::StrCat(file, ":", sent.line, " ", sent.type));
      const std::unique_ptr<Message> read = MessageOf(sent.type), meant = MessageOf(sent.type);
      ASSERT_NE(read, nullptr);
      ASSERT_TRUE(read->ParseFromString(sent.bytes));
      std::vector<std::string> unknown;
      FindUnknown(*read, "", &unknown);
      EXPECT_THAT(unknown, IsEmpty());
      ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(sent.text, meant.get()));
      EXPECT_EQ(read->DebugString(), meant->DebugString());
      EXPECT_EQ(Bytes(*read), sent.bytes) << "a message that passes through loses nothing";
      ++messages;
    }
  }
  EXPECT_GT(messages, 70);
}

template <typename M>
std::vector<M> Sent(const std::string& file) {
  std::vector<M> messages;
  for (const Exchanged& sent : ReadExchanges(Folder() + file)) {
    if (sent.type != M::descriptor()->full_name()) continue;
    EXPECT_TRUE(messages.emplace_back().ParseFromString(sent.bytes));
  }
  EXPECT_FALSE(messages.empty()) << file;
  return messages;
}

// --- a client of the release, and today's coordinator ---

TEST(Exchanges, AJobWithEveryFieldIsTaken) {
  const TempFolder folder;
  const v1::CreateJobRequest request = Sent<v1::CreateJobRequest>("client.txt").at(0);
  const absl::StatusOr<ValidatedJob> job =
      ValidateJob(request.job(), DataRoots::Create({{"data", folder.path()}}).value());
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->spec.mask.documents, (std::vector<int64_t>{60, 40}));
  EXPECT_EQ(job->spec.verify_rows, 4);
  EXPECT_EQ(job->spec.max_attempts, 2);
  // What it did not know then stays as it was: the answer of that time is today's.
  v1::Job answer = Sent<v1::Job>("client.txt").at(0), today = JobToProto(job->spec);
  for (const char* output_only : {"id", "state", "phase", "progress", "create_time", "revision"}) {
    const FieldDescriptor* field = v1::Job::descriptor()->FindFieldByName(output_only);
    answer.GetReflection()->ClearField(&answer, field);
  }
  answer.mutable_output()->set_file(today.output().file());
  EXPECT_EQ(today.DebugString(), answer.DebugString());
}

// --- a worker of the release, and today's coordinator ---

class Link : public NodeLink {
 public:
  void Send(v1::CoordinatorMessage message) override {
    std::lock_guard<std::mutex> lock(mutex_);
    sent_.push_back(std::move(message));
    changed_.notify_all();
  }
  void Close(const absl::Status& why) override { ADD_FAILURE() << why; }
  // The `count`-th message of a kind.
  v1::CoordinatorMessage Wait(v1::CoordinatorMessage::MessageCase kind, int count = 1) {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      int seen = 0;
      for (const v1::CoordinatorMessage& message : sent_) {
        if (message.message_case() == kind && ++seen == count) return message;
      }
      changed_.wait(lock);
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::CoordinatorMessage> sent_;
};

TEST(Exchanges, AWorkerOfTheReleaseRunsAJob) {
  using Kind = v1::CoordinatorMessage;
  const TempFolder folder;
  const DataRoots roots = DataRoots::Create({{"data", folder.path()}}).value();
  const std::unique_ptr<Store> store = *Store::Open(folder.path() + "/state");
  FakeClock clock;
  TestHold hold({});
  TaskPool work(2);
  Engine engine({}, store.get(), &roots, &clock, &work, &hold,
                [](const absl::Status& why) { ADD_FAILURE() << why; });
  ASSERT_TRUE(engine.Start().ok());

  const std::vector<v1::WorkerMessage> said = Sent<v1::WorkerMessage>("fleet.txt");
  const auto link = std::make_shared<Link>();
  const v1::Hello& hello = said.at(0).hello();
  ASSERT_TRUE(ServesWorker(VersionRule(), hello.node(), hello.version()).ok());
  EXPECT_TRUE(engine.OnHello(hello, 1, link).ok());
  const v1::Welcome welcome = link->Wait(Kind::kWelcome).welcome();
  ASSERT_EQ(welcome.term(), 1) << "as the exchange was recorded";

  absl::StatusOr<ValidatedJob> job = ValidateJob(Sent<v1::CreateJobRequest>("client.txt").at(0).job(), roots);
  ASSERT_TRUE(job.ok()) << job.status();
  JobRecord record;
  record.id = record.request_id = "j-1";
  record.spec = job->spec;
  ASSERT_TRUE(engine.Submit(record, "bytes").ok());
  const v1::StartRanks start = link->Wait(Kind::kStart).start();
  EXPECT_THAT(start.ranks(), SizeIs(2));
  for (size_t i = 1; i < said.size(); ++i) EXPECT_TRUE(engine.OnMessage(hello.node(), 1, said[i]).ok());
  EXPECT_THAT(link->Wait(Kind::kBlobs).blobs().blobs(), ElementsAre("address of 0", "address of 1"));
  EXPECT_EQ(link->Wait(Kind::kHeartbeat, 2).heartbeat().sequence(), 2);
  while (engine.ViewLive("j-1").has_value()) std::this_thread::yield();  // merge, rename, report
  work.Drain();
  engine.Stop();
  const v1::Job ended = *ViewOfRow(**store->Get("j-1"));
  EXPECT_EQ(ended.state(), v1::JOB_STATE_SUCCEEDED) << ended.error().DebugString();
  EXPECT_EQ(ended.report().ranks_size(), 2);
  EXPECT_EQ(ended.report().verification().worst_tensor(), "dq");
}

// --- a coordinator of the release, and today's worker ---

TEST(Exchanges, ACoordinatorOfTheReleaseIsObeyed) {
  FakeClock clock;
  FakeHost host;
  FakeFleet fleet;
  FakeGate gate;
  NodeIdentity identity;
  identity.hello = Sent<v1::WorkerMessage>("fleet.txt").at(0).hello();
  identity.data_roots = {{"data", "/data"}};
  NodeAgent agent(identity, &clock, &host, &fleet, &gate);
  agent.OnConnected();
  for (const v1::CoordinatorMessage& message : Sent<v1::CoordinatorMessage>("fleet.txt")) {
    agent.OnMessage(message);
    agent.Tick();
  }
  EXPECT_THAT(fleet.broken, IsEmpty());
  EXPECT_THAT(host.asked, ElementsAre("start j-1#1/0", "start j-1#1/1", "blobs j-1#1/0", "blobs j-1#1/1",
                                      "abort j-1#1/0", "abort j-1#1/1"));
  ASSERT_THAT(host.runs, SizeIs(2));
  const v1::StartRanks& start = host.runs[1].start();
  EXPECT_TRUE(absl::EndsWith(start.staging_file(), ".partial")) << start.staging_file();
  const absl::StatusOr<Plan> plan = PlanFromProto(start.plan());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->ranks, SizeIs(2));
  EXPECT_TRUE(fleet.sent.back().logs().last());
}

// --- the daemon of the release, and today's executor ---

TEST(Exchanges, AnExecutorReadsItsChannel) {
  FrameDecoder decoder;
  std::vector<v1::ToExecutor> sent = Sent<v1::ToExecutor>("executor.txt");
  for (const v1::ToExecutor& message : sent) {
    const std::string frame = EncodeFrame(message).value();
    decoder.Feed(frame.data(), frame.size());
  }
  for (const v1::ToExecutor& message : sent) {
    v1::ToExecutor read;
    ASSERT_TRUE(read.ParseFromString(decoder.Next().value().value()));
    EXPECT_EQ(read.message_case(), message.message_case());
  }
  EXPECT_TRUE(PlanFromProto(sent.at(0).run().start().plan()).ok());
}

// --- the store ---

TEST(Exchanges, ARecordOfTheReleaseIsRead) {
  v1::Job ended = Sent<v1::Job>("client.txt").at(1);
  JobRow row;
  stored::Job record;
  *record.mutable_view() = ended;
  record.SerializeToString(&row.body);
  ended.report().SerializeToString(&row.report);
  const absl::StatusOr<v1::Job> view = ViewOfRow(row);
  ASSERT_TRUE(view.ok()) << view.status();
  EXPECT_EQ(view->state(), v1::JOB_STATE_SUCCEEDED);
}

}  // namespace
}  // namespace seqpar
