// Ranks, nodes and the coordinator itself fail; jobs go on.
#include <chrono>
#include <filesystem>
#include <thread>

#include "tests/coordinator/api/coordinator_fixture.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;

class FaultsTest : public CoordinatorTest {
 protected:
  // Lets the pause between two attempts pass.
  void PassBackoff(const std::string& job) {
    WaitReason(job, "attempt");
    clock_.AdvanceMicros(1'000'000);
  }
};

TEST_F(FaultsTest, ARankThatFailsCostsAnAttempt) {
  auto worker = Worker({.hold = true});
  const v1::Job job = Create(Job("out.safetensors"));
  ASSERT_TRUE(worker->WaitTables(1));
  worker->FailRank(1, "it broke");
  PassBackoff(job.id());
  ASSERT_TRUE(worker->WaitTables(2));
  EXPECT_EQ(worker->gang().attempt(), 2);
  worker->FinishAll(worker->gang(), {0, 1});
  const v1::Job done = WaitEnded(job.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  ASSERT_EQ(done.attempts_size(), 2);
  EXPECT_THAT(done.attempts(0).error().message(),
              HasSubstr("rank 1 on a/1 failed in phase execute: it broke"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out.safetensors"));
}

class DeafWorkerTest : public FaultsTest {
 protected:
  static constexpr int64_t kHeartbeats = 2'000'000;  // whose answers no window of HTTP/2 holds
  // The worker is to be too fast for itself alone.
  void Configure(CoordinatorConfig* config) override {
    config->engine.backlog.stream_messages = config->engine.backlog.messages = kHeartbeats;
  }
};

// The clock stands still: no lease ends.
TEST_F(FaultsTest, AGangThatItsNodesDoNotKnowEndsWithoutTheirLeases) {
  auto a = Worker({.node = "a", .devices = 1, .deaf = true});
  auto b = Worker({.node = "b", .devices = 1, .deaf = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(a->WaitNotStarted());
  ASSERT_TRUE(b->WaitNotStarted());
  Cancel(job.id());
  EXPECT_EQ(WaitEnded(job.id()).state(), v1::JOB_STATE_CANCELLED);
}

// Its heartbeats come, so that no lease ends.
TEST_F(DeafWorkerTest, AWorkerThatDoesNotReadLosesItsStreamAndMayComeBack) {
  const auto stub =
      v1::FleetService::NewStub(grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials()));
  Call call;
  const auto stream = stub->Attach(&call.context);
  v1::WorkerMessage message;
  message.mutable_hello()->set_node("a");
  message.mutable_hello()->set_version(kVersion);
  *message.mutable_hello()->add_devices() = FakeWorker::Device();
  message.mutable_hello()->mutable_local()->set_latency(1e-6);
  message.mutable_hello()->mutable_local()->set_bandwidth(1e10);
  ASSERT_TRUE(stream->Write(message));
  int64_t sent = 0;
  for (bool open = true; open && sent < kHeartbeats; ++sent) {
    message.mutable_heartbeat()->set_sequence(sent);
    open = stream->Write(message);
  }
  EXPECT_LT(sent, kHeartbeats) << "each has an answer, and so much waited";
  v1::CoordinatorMessage answer;
  while (stream->Read(&answer)) {
  }
  EXPECT_NE(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  auto again = Worker({.node = "a"});
  const v1::Job job = Create(Job());
  EXPECT_EQ(WaitEnded(job.id()).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(FaultsTest, AFailureWithoutAnErrorIsOneAllTheSame) {
  auto worker = Worker({.hold = true});
  v1::Job job = Job();
  job.set_max_attempts(1);
  job = Create(job);
  ASSERT_TRUE(worker->WaitTables(1));
  worker->FailRank(1, "", 0);
  const v1::Job failed = WaitEnded(job.id());
  EXPECT_EQ(failed.state(), v1::JOB_STATE_FAILED);
  EXPECT_EQ(ReasonOf(StatusFromProto(failed.error())), reason::kRankFailed);
  EXPECT_THAT(failed.error().message(), HasSubstr("its worker gave no error"));
}

TEST_F(FaultsTest, ASilentNodeIsLostWithItsLease) {
  auto worker = Worker({.hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  clock_.AdvanceMicros(5'000'000);
  worker->Heartbeat(1);
  ASSERT_TRUE(worker->WaitHeartbeatAnswer(1));
  clock_.AdvanceMicros(5'999'999);
  EXPECT_EQ(Get(job.id()).state(), v1::JOB_STATE_RUNNING);
  clock_.AdvanceMicros(1);
  const v1::Job waiting =
      Watch(job.id(), [](const v1::Job& j) { return j.state() == v1::JOB_STATE_PENDING; }).back();
  EXPECT_THAT(waiting.attempts(0).error().message(), HasSubstr("the lease of its node is over"));
  worker->WaitEnded();  // told to attach anew
  clock_.AdvanceMicros(1'000'000);
  auto again = Worker({.incarnation = 2});
  EXPECT_EQ(WaitEnded(job.id()).state(), v1::JOB_STATE_SUCCEEDED);
}

// Two that go by one name do not end each other's ranks in turns.
TEST_F(FaultsTest, ADaemonThatAnotherHasTakenThePlaceOfStaysAway) {
  auto first = Worker({.hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(first->WaitTables(1));
  auto second = Worker({.incarnation = 2, .hold = true});
  EXPECT_EQ(first->WaitStatus().error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(WaitReason(job.id(), "attempt 2").attempts(0).error().message(),
              HasSubstr("its worker was started anew"));
  clock_.AdvanceMicros(1'000'000);
  ASSERT_TRUE(second->WaitTables(1));
  FakeWorker back(server_->address(), {});
  const grpc::Status refused = back.WaitStatus();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(Details(refused)), "NODE_REPLACED");
  second->FinishAll(second->gang(), {0, 1});
  const v1::Job done = WaitEnded(job.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(done.attempts_size(), 2);
}

TEST_F(FaultsTest, AStreamThatBreaksLosesNothing) {
  auto worker = Worker({.hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  const std::vector<v1::RunningRank> running = worker->Running();
  const v1::GangId gang = worker->gang();
  worker.reset();
  worker = Worker({.hold = true, .running = running});
  EXPECT_EQ(worker->welcome().keep_size(), 1);
  worker->FinishAll(gang, {0, 1});
  const v1::Job done = WaitEnded(job.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(done.attempts_size(), 1);
}

TEST_F(FaultsTest, ACoordinatorThatComesBackTakesTheGangUp) {
  auto worker = Worker({.devices = 2, .hold = true});
  const v1::Job job = Create(Job("out.safetensors"));
  const v1::Job queued = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  const std::vector<v1::RunningRank> running = worker->Running();
  const v1::GangId gang = worker->gang();
  server_.reset();
  worker.reset();
  StartServer();
  EXPECT_EQ(Get(job.id()).state(), v1::JOB_STATE_RUNNING);
  worker = Worker({.devices = 2, .highest_term = 1, .hold = true, .running = running});
  EXPECT_EQ(worker->welcome().term(), 2);
  ASSERT_EQ(worker->welcome().keep_size(), 1);
  EXPECT_EQ(worker->welcome().keep(0).attempt(), 1);
  worker->FinishAll(gang, {0, 1});
  const v1::Job done = WaitEnded(job.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(done.attempts_size(), 1);
  EXPECT_GT(done.revision(), queued.revision());
  // The queue is still there, too. The first table was the first gang's: its ranks might not have had it.
  ASSERT_TRUE(worker->WaitTables(2));
  worker->FinishAll(worker->gang(), {0, 1});
  EXPECT_EQ(WaitEnded(queued.id()).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(FaultsTest, GangsThatAreOverAreNotKept) {
  v1::RunningRank stray;
  stray.mutable_gang()->set_job("j-unknown");
  stray.mutable_gang()->set_attempt(1);
  auto worker = Worker({.running = {stray}});
  EXPECT_EQ(worker->welcome().keep_size(), 0);
}

TEST_F(FaultsTest, AWorkerThatHasSeenALaterTermIsRefused) {
  FakeWorker worker(server_->address(), {.highest_term = 7});
  EXPECT_FALSE(worker.WaitWelcome());
}

TEST_F(FaultsTest, ARankThatStandsStillIsNamed) {
  auto a = Worker({.node = "a", .devices = 1, .hold = true});
  v1::Job job = Job();
  job.mutable_workers()->set_min(1);
  job.mutable_workers()->set_max(1);
  job.set_max_attempts(1);
  const v1::Job created = Create(job);
  ASSERT_TRUE(a->WaitTables(1));
  // Met, but nothing ever moves: after a minute that is no progress.
  for (int beat = 1; beat <= 15; ++beat) {
    clock_.AdvanceMicros(4'000'000);
    a->Heartbeat(beat);
    ASSERT_TRUE(a->WaitHeartbeatAnswer(beat));
  }
  const v1::Job done = WaitEnded(created.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(done.error().message(), HasSubstr("no progress for 60 s: rank 0 on a/0"));
}

class StagingTest : public FaultsTest {
 protected:
  void SetUp() override {
    holds_[JobPhase::kPlace] = hold_;
    folder_.Write("hold", "");
    StartServer();
  }
  // A cancelled job whose staging file was still to be made.
  v1::Job CancelWhilePlacing() {
    worker_ = Worker();
    const v1::Job job = Create(Job("out.safetensors"));
    Watch(job.id(), [](const v1::Job& j) { return j.phase() == v1::JOB_PHASE_PLACE; });
    EXPECT_EQ(Cancel(job.id()).state(), v1::JOB_STATE_CANCELLED);
    return job;
  }
  bool Staged() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path().extension() == ".partial") return true;
    }
    return false;
  }
  static bool Becomes(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + TestSeconds(30);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }
  const std::string hold_ = folder_ / "hold";
  std::unique_ptr<FakeWorker> worker_;
};

TEST_F(StagingTest, AFileThatIsMadeForAJobThatEndedMeanwhileGoesAgain) {
  CancelWhilePlacing();
  std::filesystem::remove(hold_);
  const auto before = std::filesystem::last_write_time(folder_.path());
  // The file comes and goes: both change the folder.
  EXPECT_TRUE(
      Becomes([&] { return std::filesystem::last_write_time(folder_.path()) != before && !Staged(); }));
}

TEST_F(StagingTest, WhatAnEndedJobLeftIsUnlinkedByTheNextProcess) {
  const v1::Job job = CancelWhilePlacing();
  server_.reset();  // before it had the time
  folder_.Write(".out.safetensors.seqpar-" + job.id() + "-1.partial", "left behind");
  ASSERT_TRUE(Staged());
  StartServer();
  EXPECT_EQ(Get(job.id()).state(), v1::JOB_STATE_CANCELLED);
  EXPECT_TRUE(Becomes([&] { return !Staged(); }));
}

class PlacingTest : public FaultsTest {
 protected:
  void SetUp() override {
    holds_[JobPhase::kPlace] = hold_;
    FaultsTest::SetUp();
  }
  const std::string hold_ = folder_ / "hold";
};

// Its ranks are then elsewhere, but those of the attempt before are what it speaks of.
TEST_F(PlacingTest, WhatANodeHasToSayOfTheAttemptBeforeIsHeardWhileTheNextIsPlacedElsewhere) {
  auto a = Worker({.node = "a", .devices = 2, .hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(a->WaitTables(1));
  const v1::GangId first = a->gang();
  const std::vector<v1::RunningRank> running = a->Running();
  auto b = Worker({.node = "b", .devices = 2, .hold = true});
  Drain("a");
  folder_.Write("hold", "");
  a->FailRank(1, "it broke");
  PassBackoff(job.id());
  Watch(job.id(), [](const v1::Job& j) { return j.phase() == v1::JOB_PHASE_PLACE && j.attempt() == 1; });
  a->Progress(1, first, 0, 50);
  EXPECT_TRUE(a->WaitHeartbeatAnswer(1)) << "its stream was closed";
  auto again = Worker({.node = "a", .devices = 2, .running = running});
  EXPECT_EQ(again->welcome().keep_size(), 0);
  std::filesystem::remove(hold_);
  ASSERT_TRUE(b->WaitTables(1));
  EXPECT_EQ(b->gang().attempt(), 2);
  b->FinishAll(b->gang(), {0, 1});
  EXPECT_EQ(WaitEnded(job.id()).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(FaultsTest, ADrainedNodeTakesNoNewRanks) {
  auto worker = Worker({.hold = true});
  const v1::Job running = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  const v1::Node node = Drain("a");
  EXPECT_EQ(node.state(), v1::NODE_STATE_DRAINING);
  EXPECT_TRUE(node.drained());
  EXPECT_EQ(node.devices(0).job(), running.id());
  const v1::Job waiting = Create(Job());
  WaitReason(waiting.id(), "waits for a node");
  worker->FinishAll(worker->gang(), {0, 1});
  EXPECT_EQ(WaitEnded(running.id()).state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(Get(waiting.id()).state(), v1::JOB_STATE_PENDING);
  EXPECT_EQ(Drain("a", /*undo=*/true).state(), v1::NODE_STATE_READY);
  ASSERT_TRUE(worker->WaitTables(2));
}

TEST_F(FaultsTest, ADrainOutlivesCoordinatorAndWorker) {
  auto worker = Worker();
  Drain("a");
  worker.reset();
  worker = Worker({.incarnation = 2});
  EXPECT_EQ(Nodes().at(0).state(), v1::NODE_STATE_DRAINING);
  server_.reset();
  worker.reset();
  StartServer();
  // Known before it is back, and shown.
  ASSERT_EQ(Nodes().size(), 1u);
  EXPECT_EQ(Nodes()[0].state(), v1::NODE_STATE_LOST);
  EXPECT_TRUE(Nodes()[0].drained());
  worker = Worker({.incarnation = 3, .highest_term = 1});
  EXPECT_EQ(Nodes()[0].state(), v1::NODE_STATE_DRAINING);
  const v1::Job waiting = Create(Job());
  WaitReason(waiting.id(), "waits for a node");
  EXPECT_FALSE(Drain("a", /*undo=*/true).drained());
  EXPECT_EQ(WaitEnded(waiting.id()).state(), v1::JOB_STATE_SUCCEEDED);
  // So does its end, also where the node was away.
  Drain("a");
  worker.reset();
  server_.reset();
  StartServer();
  Drain("a", /*undo=*/true);
  EXPECT_TRUE(Nodes().empty());
  server_.reset();
  StartServer();
  worker = Worker({.incarnation = 4, .highest_term = 3});
  EXPECT_EQ(Nodes().at(0).state(), v1::NODE_STATE_READY);
}

TEST_F(FaultsTest, ADrainedNodeThatComesBackKeepsItsGang) {
  auto worker = Worker({.hold = true});
  const v1::Job job = Create(Job());
  ASSERT_TRUE(worker->WaitTables(1));
  const v1::GangId gang = worker->gang();
  const std::vector<v1::RunningRank> running = worker->Running();
  Drain("a");
  worker.reset();
  worker = Worker({.hold = true, .running = running});
  worker->FinishAll(gang, {0, 1});
  const v1::Job done = WaitEnded(job.id());
  EXPECT_EQ(done.state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(done.attempts_size(), 1);
}

}  // namespace
}  // namespace seqpar
