#include "worker/daemon/node_agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/job/proto.h"
#include "tests/worker/daemon/agent_fakes.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kSecond = 1'000'000;

class NodeAgentTest : public ::testing::Test {
 protected:
  NodeAgentTest() : agent_(Identity(), &clock_, &host_, &fleet_, &gate_, &observer_) {}

  static NodeIdentity Identity() {
    NodeIdentity identity;
    identity.hello.set_node("node-a");
    for (int i = 0; i < 2; ++i) identity.hello.add_devices()->set_threads(1);
    identity.data_roots = {{"data", "/data"}};
    return identity;
  }

  static v1::GangId Gang(int attempt, int64_t term = 1, const std::string& job = "j") {
    v1::GangId gang;
    gang.set_term(term);
    gang.set_job(job);
    gang.set_attempt(attempt);
    return gang;
  }

  void Welcome(int64_t term = 1, std::vector<v1::GangId> keep = {}) {
    v1::CoordinatorMessage message;
    message.mutable_welcome()->set_term(term);
    message.mutable_welcome()->set_heartbeat_ms(1000);
    message.mutable_welcome()->set_lease_ms(6000);
    for (const v1::GangId& gang : keep) *message.mutable_welcome()->add_keep() = gang;
    agent_.OnMessage(message);
  }

  void Attach() {
    agent_.OnConnected();
    Welcome();
  }

  // Ranks 0, 1, ... on devices 0, 1, ...
  void Start(const v1::GangId& gang, int ranks = 2) {
    v1::CoordinatorMessage message;
    *message.mutable_start()->mutable_gang() = gang;
    for (int rank = 0; rank < ranks; ++rank) {
      v1::StartRanks::Placement* placement = message.mutable_start()->add_ranks();
      placement->set_rank(rank);
      placement->set_device(rank);
    }
    agent_.OnMessage(message);
  }

  void Stop(const v1::GangId& gang) {
    v1::CoordinatorMessage message;
    *message.mutable_stop()->mutable_gang() = gang;
    *message.mutable_stop()->mutable_reason() = StatusToProto(absl::CancelledError("cancelled"));
    agent_.OnMessage(message);
  }

  void AnswerHeartbeat(int64_t sequence) {
    v1::CoordinatorMessage message;
    message.mutable_heartbeat()->set_sequence(sequence);
    agent_.OnMessage(message);
  }

  void Report(const RankKey& key, v1::RankEvent::Kind kind, const absl::Status& error = absl::OkStatus(),
              bool root_cause = false) {
    v1::FromExecutor message;
    message.mutable_event()->set_kind(kind);
    if (!error.ok()) *message.mutable_event()->mutable_error() = StatusToProto(error);
    message.mutable_event()->set_root_cause(root_cause);
    agent_.OnExecutorMessage(key, message);
  }

  // The events sent since the last call: "FAILED j#1/0 root: message".
  std::vector<std::string> TakeEvents() {
    std::vector<std::string> events;
    for (const v1::WorkerMessage& message : fleet_.sent) {
      if (!message.has_event()) continue;
      const v1::RankEvent& event = message.event();
      std::string text = absl::StrCat(v1::RankEvent::Kind_Name(event.kind()), " ",
                                      NameOf({event.gang().job(), event.gang().attempt(), event.rank()}));
      if (event.kind() == v1::RankEvent::FAILED) {
        absl::StrAppend(&text, event.root_cause() ? " root: " : " follows: ", event.error().message());
      }
      events.push_back(text);
    }
    fleet_.sent.clear();
    return events;
  }

  std::vector<std::string> TakeAsked() { return std::exchange(host_.asked, {}); }

  void Advance(int64_t us) {
    clock_.AdvanceMicros(us);
    agent_.Tick();
  }

  FakeClock clock_;
  FakeHost host_;
  FakeObserver observer_;
  FakeFleet fleet_;
  FakeGate gate_;
  NodeAgent agent_;
};

TEST_F(NodeAgentTest, StartsRanksAndSaysSo) {
  Attach();
  Start(Gang(1));
  EXPECT_THAT(TakeAsked(), ElementsAre("start j#1/0", "start j#1/1"));
  EXPECT_THAT(TakeEvents(), ElementsAre("STARTED j#1/0", "STARTED j#1/1"));
  const v1::Run& run = host_.runs[1];
  ASSERT_EQ(run.start().ranks_size(), 1);
  EXPECT_EQ(run.start().ranks(0).rank(), 1);
  EXPECT_EQ(run.node(), "node-a");
  EXPECT_EQ(run.data_roots(0).path(), "/data");
  EXPECT_EQ(run.lease_deadline_us(), clock_.BootMicros() + 5 * kSecond);
}

TEST_F(NodeAgentTest, ARepeatedStartStartsNothingTwice) {
  Attach();
  Start(Gang(1));
  TakeAsked();
  Start(Gang(1));
  EXPECT_THAT(TakeAsked(), IsEmpty());
}

TEST_F(NodeAgentTest, RefusesALowerTermAndALowerAttempt) {
  agent_.OnConnected();
  Welcome(5);
  Start(Gang(2, 5));
  TakeAsked();
  Start(Gang(1, 5));
  Start(Gang(1, 4, "other"));
  Stop(Gang(2, 4));
  Stop(Gang(1, 9));
  EXPECT_THAT(TakeAsked(), IsEmpty());
}

TEST_F(NodeAgentTest, GivesUpAStreamToACoordinatorThatIsNotTheLatest) {
  agent_.OnConnected();
  Welcome(5);
  agent_.OnConnected();
  Welcome(4);
  ASSERT_EQ(fleet_.broken.size(), 1u);
  EXPECT_THAT(fleet_.broken[0], HasSubstr("term 4 is over"));
}

TEST_F(NodeAgentTest, StopAbortsThenKillsAndReportsWhenTheProcessIsGone) {
  Attach();
  Start(Gang(1));
  TakeAsked();
  TakeEvents();
  Stop(Gang(1));
  EXPECT_THAT(TakeAsked(), ElementsAre("abort j#1/0", "abort j#1/1"));
  agent_.OnExecutorExit({"j", 1, 0}, "exited with code 1");
  Advance(kSecond / 2);
  EXPECT_THAT(TakeAsked(), IsEmpty());
  Advance(kSecond / 2);
  EXPECT_THAT(TakeAsked(), ElementsAre("kill j#1/1"));
  agent_.OnExecutorExit({"j", 1, 1}, "was killed by signal 9 (Killed)");
  const std::vector<std::string> events = TakeEvents();
  EXPECT_THAT(events.back(), "STOPPED j#1/1");
  EXPECT_TRUE(agent_.Idle());
}

TEST_F(NodeAgentTest, AnExitWithoutAReportIsTheRootCauseAndNamesTheSignal) {
  Attach();
  Start(Gang(1));
  TakeAsked();
  TakeEvents();
  v1::FromExecutor progress;
  progress.mutable_progress()->set_phase(v1::JOB_PHASE_EXECUTE);
  agent_.OnExecutorMessage({"j", 1, 1}, progress);
  // The survivor notices first: its failure follows from the other's all the same.
  Report({"j", 1, 0}, v1::RankEvent::FAILED, absl::UnavailableError("rank 1 is gone"), false);
  agent_.OnExecutorExit({"j", 1, 1}, "was killed by signal 9 (Killed)");
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED j#1/0 follows: rank 1 is gone",
                                        "FAILED j#1/1 root: its executor was killed by signal 9 (Killed)"));
  EXPECT_THAT(TakeAsked(), ElementsAre("abort j#1/1"))
      << "ranks of the gang on this node are stopped at once";
}

TEST_F(NodeAgentTest, ANewerAttemptKillsTheOldOneAndWaitsForItsDevices) {
  Attach();
  Start(Gang(1), 1);
  TakeAsked();
  Start(Gang(2), 1);
  agent_.Tick();
  EXPECT_THAT(TakeAsked(), ElementsAre("abort j#1/0", "kill j#1/0"));
  agent_.OnExecutorExit({"j", 1, 0}, "was killed by signal 9 (Killed)");
  EXPECT_THAT(TakeAsked(), ElementsAre("start j#2/0"));
}

TEST_F(NodeAgentTest, ABusyDeviceIsRefusedByName) {
  Attach();
  Start(Gang(1), 1);
  TakeEvents();
  Start(Gang(1, 1, "other"), 1);
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED other#1/0 root: it cannot start: device 0 is busy with j"));
}

TEST_F(NodeAgentTest, AnsweredHeartbeatsExtendTheLeaseFromTheirSending) {
  Attach();
  Start(Gang(1));
  agent_.Tick();
  const int64_t sent_us = clock_.BootMicros();
  Advance(kSecond / 2);
  AnswerHeartbeat(1);
  EXPECT_EQ(host_.lease_deadline_us, sent_us + 5 * kSecond);
}

TEST_F(NodeAgentTest, AShortLeaseIsHeldByMoreHeartbeats) {
  agent_.OnConnected();
  v1::CoordinatorMessage welcome;
  welcome.mutable_welcome()->set_term(1);
  welcome.mutable_welcome()->set_heartbeat_ms(1000);
  welcome.mutable_welcome()->set_lease_ms(1500);  // 0.75 s here
  agent_.OnMessage(welcome);
  fleet_.sent.clear();
  EXPECT_EQ(agent_.Tick(), clock_.BootMicros() + kSecond / 4);
  Advance(kSecond / 4);
  Advance(kSecond / 4);
  EXPECT_EQ(fleet_.sent.size(), 3u);
}

TEST_F(NodeAgentTest, TheEndOfTheLeaseKillsEverything) {
  Attach();
  Start(Gang(1));
  TakeAsked();
  agent_.OnDisconnected();
  Advance(5 * kSecond - 1);
  EXPECT_THAT(TakeAsked(), IsEmpty()) << "executors go on while the stream is broken";
  Advance(1);
  EXPECT_THAT(TakeAsked(), ElementsAre("kill j#1/0", "kill j#1/1"));
}

TEST_F(NodeAgentTest, AStreamWithoutAnswersIsGivenUp) {
  Attach();
  Advance(6 * kSecond);
  EXPECT_EQ(fleet_.broken.size(), 1u);
}

TEST_F(NodeAgentTest, WhatABrokenStreamMayHaveLostIsSentAgain) {
  Attach();
  agent_.Tick();  // heartbeat 1
  Start(Gang(1));
  Report({"j", 1, 0}, v1::RankEvent::FINISHED);
  AnswerHeartbeat(1);  // was sent before the events: confirms none of them
  agent_.OnDisconnected();
  agent_.OnExecutorExit({"j", 1, 0}, "exited with code 0");
  fleet_.sent.clear();

  agent_.OnConnected();
  const v1::Hello& hello = fleet_.sent[0].hello();
  EXPECT_EQ(hello.running_size(), 2) << "the finished rank counts as running until its event has arrived";
  EXPECT_EQ(hello.highest_term(), 1);
  fleet_.sent.clear();
  Welcome(1, {Gang(1)});
  EXPECT_THAT(TakeEvents(), ElementsAre("STARTED j#1/0", "STARTED j#1/1", "FINISHED j#1/0"));

  Advance(kSecond);
  AnswerHeartbeat(2);
  fleet_.sent.clear();
  agent_.OnDisconnected();
  agent_.OnConnected();
  Welcome(1, {Gang(1)});
  EXPECT_THAT(TakeEvents(), IsEmpty()) << "an answered heartbeat confirms what was sent before it";
}

TEST_F(NodeAgentTest, GangsThatTheCoordinatorDoesNotKeepAreStopped) {
  Attach();
  Start(Gang(1), 1);
  TakeAsked();
  agent_.OnDisconnected();
  agent_.OnConnected();
  Welcome(2, {});
  EXPECT_THAT(TakeAsked(), ElementsAre("abort j#1/0"));
}

TEST_F(NodeAgentTest, AWorkerThatWasToldToStopTakesNoRanksAndSaysSo) {
  Attach();
  agent_.BeginShutdown();
  Start(Gang(1), 1);
  EXPECT_THAT(TakeAsked(), IsEmpty());
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED j#1/0 root: it cannot start: its worker was told to stop",
                                        "STOPPED j#1/0"));
  fleet_.sent.clear();
  Advance(kSecond);
  ASSERT_FALSE(fleet_.sent.empty());
  EXPECT_TRUE(fleet_.sent.back().heartbeat().draining());
  agent_.OnDisconnected();
  agent_.OnConnected();
  EXPECT_TRUE(fleet_.sent.back().hello().draining());
}

TEST_F(NodeAgentTest, ShutdownStopsRanksAndNamesItselfAsTheCause) {
  Attach();
  Start(Gang(1), 1);
  TakeAsked();
  TakeEvents();
  agent_.BeginShutdown();
  EXPECT_THAT(TakeAsked(), ElementsAre("abort j#1/0"));
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED j#1/0 root: the worker on node-a was told to stop"));
  EXPECT_FALSE(agent_.Idle());
  agent_.OnExecutorExit({"j", 1, 0}, "exited with code 1");
  EXPECT_TRUE(agent_.Idle());
  EXPECT_THAT(TakeEvents(), ElementsAre("STOPPED j#1/0")) << "nobody has to wait for the lease";
}

TEST_F(NodeAgentTest, ADrainLetsRanksEndAndTellsAtOnce) {
  Attach();
  Start(Gang(1), 1);
  agent_.Tick();  // heartbeat 1
  AnswerHeartbeat(1);
  fleet_.sent.clear();
  TakeAsked();
  agent_.BeginDrain();
  agent_.BeginDrain();
  EXPECT_EQ(observer_.drains, 1);
  agent_.Tick();
  ASSERT_EQ(fleet_.sent.size(), 1u) << "the coordinator hears of it before the next heartbeat is due";
  EXPECT_TRUE(fleet_.sent[0].heartbeat().draining());
  EXPECT_THAT(TakeAsked(), IsEmpty());
  EXPECT_FALSE(agent_.Settled());
  Start(Gang(1, 1, "other"), 1);
  EXPECT_THAT(TakeAsked(), IsEmpty());
  Report({"j", 1, 0}, v1::RankEvent::FINISHED);
  agent_.OnExecutorExit({"j", 1, 0}, "exited with code 0");
  EXPECT_TRUE(agent_.Idle());
  EXPECT_FALSE(agent_.Settled()) << "the coordinator may not have heard that it finished";
  fleet_.sent.clear();
  agent_.Tick();
  ASSERT_EQ(fleet_.sent.size(), 1u);
  AnswerHeartbeat(fleet_.sent[0].heartbeat().sequence());
  EXPECT_TRUE(agent_.Settled());
}

TEST_F(NodeAgentTest, ADrainThatHasLastedIsAStop) {
  Attach();
  Start(Gang(1), 1);
  agent_.BeginDrain();
  TakeEvents();
  agent_.BeginShutdown();
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED j#1/0 root: the worker on node-a was told to stop"));
}

TEST_F(NodeAgentTest, ACheckpointIsToldAndTheRankGoesOn) {
  Attach();
  Start(Gang(1), 1);
  TakeEvents();
  v1::FromExecutor message;
  message.mutable_event()->set_kind(v1::RankEvent::CHECKPOINTED);
  message.mutable_event()->set_layers(7);
  agent_.OnExecutorMessage({"j", 1, 0}, message);
  ASSERT_EQ(fleet_.sent.size(), 1u);
  EXPECT_EQ(fleet_.sent[0].event().layers(), 7);
  EXPECT_EQ(fleet_.sent[0].event().gang().attempt(), 1);
  TakeEvents();
  Report({"j", 1, 0}, v1::RankEvent::FINISHED);
  EXPECT_THAT(TakeEvents(), ElementsAre("FINISHED j#1/0"));
}

TEST_F(NodeAgentTest, AHelloTellsTheAttemptsThatWereSeen) {
  Attach();
  Start(Gang(3), 1);
  agent_.OnExecutorExit({"j", 3, 0}, "exited with code 1");
  agent_.OnDisconnected();
  fleet_.sent.clear();
  agent_.OnConnected();
  EXPECT_EQ(fleet_.sent[0].hello().highest_attempts().at("j"), 3);
}

TEST_F(NodeAgentTest, AnswersForLogsEndWithALastMessage) {
  Attach();
  Start(Gang(1));
  agent_.OnExecutorOutput({"j", 1, 1}, "hello\n", 6);
  fleet_.sent.clear();
  v1::CoordinatorMessage query;
  query.mutable_logs()->set_query(7);
  query.mutable_logs()->set_job("j");
  query.mutable_logs()->set_rank(1);
  agent_.OnMessage(query);
  ASSERT_EQ(fleet_.sent.size(), 2u);
  EXPECT_EQ(fleet_.sent[0].logs().text(), "hello\n");
  EXPECT_EQ(fleet_.sent[0].logs().device(), "node-a/1");
  EXPECT_FALSE(fleet_.sent[0].logs().last());
  EXPECT_TRUE(fleet_.sent[1].logs().last());
  EXPECT_EQ(fleet_.sent[1].logs().query(), 7);
}

TEST_F(NodeAgentTest, ADeviceIsGivenToTheNextRankWhenItIsKnownToBeFree) {
  gate_.checks = true;
  Attach();
  Start(Gang(1), 1);
  Report({"j", 1, 0}, v1::RankEvent::FINISHED);
  agent_.OnExecutorExit({"j", 1, 0}, "exited with code 0", 77);
  EXPECT_THAT(gate_.ended, ElementsAre("0 by 77"));
  TakeAsked();
  Start(Gang(1, 1, "next"), 1);
  EXPECT_THAT(TakeAsked(), IsEmpty()) << "not while it is being looked at";
  gate_.states[0] = DeviceGate::State::kOpen;
  agent_.OnDevicesChanged();
  EXPECT_THAT(TakeAsked(), ElementsAre("start next#1/0"));
}

TEST_F(NodeAgentTest, ADeviceThatIsSetAsideIsRefusedWithItsReasonAfterTheCoordinatorHeardOfIt) {
  Attach();
  gate_.states[1] = DeviceGate::State::kChecking;
  Start(Gang(1));
  EXPECT_THAT(TakeAsked(), ElementsAre("start j#1/0"));
  gate_.states[1] = DeviceGate::State::kSetAside;
  fleet_.sent.clear();
  agent_.OnDevicesChanged();
  EXPECT_THAT(observer_.seen, ::testing::IsSupersetOf({"device 0 back", "device 1 aside"}));
  ASSERT_EQ(fleet_.sent.size(), 2u);
  EXPECT_EQ(fleet_.sent[0].heartbeat().set_aside().at(1), "holds memory");
  EXPECT_EQ(fleet_.sent[0].heartbeat().set_aside().size(), 1u);
  EXPECT_THAT(TakeEvents(),
              ElementsAre("FAILED j#1/1 root: it cannot start: device 1 is set aside: holds memory"));
  agent_.OnDisconnected();
  agent_.OnConnected();
  EXPECT_EQ(fleet_.sent.back().hello().set_aside().at(1), "holds memory");
  gate_.states.clear();
  Welcome();
  Advance(kSecond);
  EXPECT_TRUE(fleet_.sent.back().heartbeat().set_aside().empty());
}

TEST_F(NodeAgentTest, WhoWatchesSeesTheLifeOfARank) {
  Attach();
  Start(Gang(1), 1);
  const RankKey key{"j", 1, 0};
  v1::FromExecutor progress;
  progress.mutable_progress()->mutable_totals()->set_flops(5);
  progress.mutable_progress()->mutable_totals()->add_traffic()->set_bytes(7);
  agent_.OnExecutorMessage(key, progress);
  fleet_.sent.clear();
  agent_.Tick();
  ASSERT_THAT(fleet_.sent, ::testing::SizeIs(1));
  const v1::RankProgress& told = fleet_.sent[0].heartbeat().ranks(0);
  EXPECT_EQ(told.totals().flops(), 5);
  EXPECT_EQ(told.totals().traffic_size(), 0) << "for this node only";
  clock_.AdvanceMicros(30);
  AnswerHeartbeat(fleet_.sent[0].heartbeat().sequence());
  Report(key, v1::RankEvent::FINISHED);
  agent_.OnExecutorExit(key, "exited with code 0");
  agent_.OnDisconnected();
  EXPECT_THAT(observer_.seen, ElementsAre("alone", "attached", "started j#1/0 on 0", "progressed j#1/0",
                                          "answered after 30", "reported j#1/0", "ended j#1/0", "alone"));
}

TEST_F(NodeAgentTest, TracesAreHandedOnWithTheOffsetOfTheCoordinatorsClock) {
  Attach();
  Start(Gang(1));
  const auto told = [this](int64_t number) {
    fleet_.sent.clear();
    v1::FromExecutor message;
    message.mutable_trace()->set_rank(1);
    message.mutable_trace()->set_number(number);
    agent_.OnExecutorMessage({"j", 1, 1}, message);
    EXPECT_EQ(fleet_.sent.size(), 1u);
    return fleet_.sent.at(0).trace();
  };
  EXPECT_FALSE(told(0).chunk().clock().known());

  fleet_.sent.clear();
  agent_.Tick();  // a heartbeat is due
  ASSERT_TRUE(fleet_.sent.at(0).has_heartbeat());
  const v1::Heartbeat heartbeat = fleet_.sent.at(0).heartbeat();
  EXPECT_EQ(heartbeat.sent_us(), clock_.BootMicros());
  clock_.AdvanceMicros(500);
  v1::CoordinatorMessage answer;
  answer.mutable_heartbeat()->set_sequence(heartbeat.sequence());
  answer.mutable_heartbeat()->set_heartbeat_sent_us(heartbeat.sent_us());
  answer.mutable_heartbeat()->set_received_us(heartbeat.sent_us() + 7'000'200);
  answer.mutable_heartbeat()->set_answered_us(heartbeat.sent_us() + 7'000'300);
  agent_.OnMessage(answer);

  const v1::RankTrace trace = told(1);
  EXPECT_EQ(trace.gang().job(), "j");
  EXPECT_EQ(trace.gang().attempt(), 1);
  EXPECT_EQ(trace.chunk().number(), 1);
  EXPECT_TRUE(trace.chunk().clock().known());
  EXPECT_EQ(trace.chunk().clock().offset_ns(), 7'000'000'000);
  EXPECT_EQ(trace.chunk().clock().bound_ns(),
            201'000);  // half of the 400 us on the way, and the readings' own

  agent_.OnDisconnected();
  Attach();  // maybe to a coordinator on another machine
  EXPECT_FALSE(told(2).chunk().clock().known());
}

TEST_F(NodeAgentTest, ALeaseThatNobodyGrantsIsLongAndEndsNothing) {
  agent_.OnConnected();
  v1::CoordinatorMessage message;
  message.mutable_welcome()->set_term(1);
  message.mutable_welcome()->set_lease_ms(std::numeric_limits<int64_t>::max());
  message.mutable_welcome()->set_heartbeat_ms(std::numeric_limits<int64_t>::max());
  agent_.OnMessage(message);
  Start(Gang(1), 1);
  TakeAsked();
  Advance(3600 * kSecond);
  EXPECT_THAT(TakeAsked(), IsEmpty());
  EXPECT_THAT(fleet_.broken, IsEmpty());
}

TEST_F(NodeAgentTest, AFailureWithoutAnErrorIsOneAllTheSame) {
  Attach();
  Start(Gang(1), 2);
  TakeEvents();
  Report({"j", 1, 0}, v1::RankEvent::FAILED, absl::OkStatus(), true);
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED j#1/0 root: its executor gave no error"));
}

}  // namespace
}  // namespace seqpar
