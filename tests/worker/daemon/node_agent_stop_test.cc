// How ranks end that somebody ends: a stop, a newer attempt, a drain.
#include "tests/worker/daemon/node_agent_fixture.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

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

TEST_F(NodeAgentTest, StopAbortsThenKillsAndReportsWhenTheProcessIsGone) {
  Attach();
  Start(Gang(1));
  TakeAsked();
  TakeEvents();
  Stop(Gang(1));
  EXPECT_THAT(TakeAsked(), ElementsAre("abort j#1/0", "abort j#1/1"));
  agent_.OnExecutorExit({"j", 1, 0}, {"exited with code 1"});
  Advance(kSecond / 2);
  EXPECT_THAT(TakeAsked(), IsEmpty());
  Advance(kSecond / 2);
  EXPECT_THAT(TakeAsked(), ElementsAre("kill j#1/1"));
  agent_.OnExecutorExit({"j", 1, 1}, {"was killed by signal 9 (Killed)"});
  const std::vector<std::string> events = TakeEvents();
  EXPECT_THAT(events.back(), "STOPPED j#1/1");
  EXPECT_TRUE(agent_.Idle());
}

TEST_F(NodeAgentTest, AStopOfAGangThatWasNeverKnownIsAnsweredForEachRankAndNoneStartsLater) {
  Attach();
  Stop(Gang(3), {4, 5});
  EXPECT_THAT(TakeEvents(), ElementsAre("STOPPED j#3/4", "STOPPED j#3/5"));
  EXPECT_TRUE(agent_.Idle());
  Start(Gang(3), 2);
  EXPECT_THAT(TakeAsked(), IsEmpty()) << "nobody would stop it again";
  EXPECT_THAT(TakeEvents(), ElementsAre("STOPPED j#3/0", "STOPPED j#3/1"));
  Start(Gang(4), 1);
  EXPECT_THAT(TakeAsked(), ElementsAre("start j#4/0"));
}

TEST_F(NodeAgentTest, AStopOfAGangThatWasForgottenIsAnswered) {
  Attach();
  Start(Gang(1), 1);
  Report({"j", 1, 0}, v1::RankEvent::FINISHED);
  agent_.OnExecutorExit({"j", 1, 0}, {"exited with code 0"});
  for (int i = 0; i < 100; ++i) {  // more than are remembered
    const std::string job = absl::StrCat("other-", i);
    Start(Gang(1, 1, job), 1);
    agent_.OnExecutorExit({job, 1, 0}, {"exited with code 1"});
  }
  TakeEvents();
  Stop(Gang(1), {0});
  EXPECT_THAT(TakeEvents(), ElementsAre("STOPPED j#1/0"));
}

TEST_F(NodeAgentTest, AGangThatRunsForLongKeepsNoOthersAndItsLogs) {
  Attach();
  Start(Gang(1, 1, "long"), 1);
  const auto run_other = [this](int i) {
    v1::CoordinatorMessage message;
    *message.mutable_start()->mutable_gang() = Gang(1, 1, absl::StrCat("other-", i));
    message.mutable_start()->add_ranks()->set_device(1);
    agent_.OnMessage(message);
    agent_.OnExecutorExit({absl::StrCat("other-", i), 1, 0}, {"exited with code 1"});
  };
  for (int i = 0; i < 100; ++i) run_other(i);
  TakeAsked();
  run_other(99);
  EXPECT_THAT(TakeAsked(), IsEmpty()) << "it is remembered, and began before";
  run_other(0);
  EXPECT_THAT(TakeAsked(), ElementsAre("start other-0#1/0")) << "it was forgotten";
  agent_.OnExecutorOutput({"long", 1, 0}, "goes on", 7);
  fleet_.sent.clear();
  v1::CoordinatorMessage query;
  query.mutable_logs()->set_job("long");
  agent_.OnMessage(query);
  ASSERT_FALSE(fleet_.sent.empty());
  EXPECT_EQ(fleet_.sent[0].logs().text(), "goes on");
}

TEST_F(NodeAgentTest, TheAnswerToAStopIsSentAgainWhereItMayHaveBeenLost) {
  Attach();
  Stop(Gang(1), {0});
  agent_.OnDisconnected();
  agent_.OnConnected();
  TakeEvents();
  Welcome(2);
  EXPECT_THAT(TakeEvents(), ElementsAre("STOPPED j#1/0"));
}

TEST_F(NodeAgentTest, AStopOfAnAttemptThatIsOverIsAnsweredWhenNothingOfItIsLeft) {
  Attach();
  Start(Gang(1), 1);
  Start(Gang(2), 1);  // waits for the device
  TakeAsked();
  TakeEvents();
  Stop(Gang(1), {0, 1});
  EXPECT_THAT(TakeEvents(), ElementsAre("STOPPED j#1/1")) << "rank 0 has a process still";
  EXPECT_THAT(TakeAsked(), IsEmpty());
  agent_.OnExecutorExit({"j", 1, 0}, {"was killed by signal 9 (Killed)"});
  EXPECT_THAT(TakeEvents(), ::testing::Contains("STOPPED j#1/0"));
  EXPECT_THAT(TakeAsked(), ElementsAre("start j#2/0")) << "which the stop did not mean";
}

TEST_F(NodeAgentTest, AStopOfATermThatIsOverIsNotAnswered) {
  agent_.OnConnected();
  Welcome(5);
  Start(Gang(1, 5), 1);
  TakeAsked();
  TakeEvents();
  Stop(Gang(1, 4), {0});
  Stop(Gang(1, 4, "other"), {0});
  EXPECT_THAT(TakeEvents(), IsEmpty());
  EXPECT_THAT(TakeAsked(), IsEmpty());
}

TEST_F(NodeAgentTest, ANewerAttemptKillsTheOldOneAndWaitsForItsDevices) {
  Attach();
  Start(Gang(1), 1);
  TakeAsked();
  Start(Gang(2), 1);
  agent_.Tick();
  EXPECT_THAT(TakeAsked(), ElementsAre("abort j#1/0", "kill j#1/0"));
  agent_.OnExecutorExit({"j", 1, 0}, {"was killed by signal 9 (Killed)"});
  EXPECT_THAT(TakeAsked(), ElementsAre("start j#2/0"));
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
  agent_.OnExecutorExit({"j", 1, 0}, {"exited with code 1"});
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
  agent_.OnExecutorExit({"j", 1, 0}, {"exited with code 0"});
  EXPECT_TRUE(agent_.Idle());
  EXPECT_FALSE(agent_.Settled()) << "the coordinator may not have heard that it finished";
  fleet_.sent.clear();
  agent_.Tick();
  ASSERT_EQ(fleet_.sent.size(), 1u);
  AnswerHeartbeat(fleet_.sent[0].heartbeat().sequence());
  EXPECT_TRUE(agent_.Settled());
}

TEST_F(NodeAgentTest, TheCoordinatorHearsOfTheStopBeforeTheRanksThatFailForIt) {
  Attach();
  Start(Gang(1), 1);
  fleet_.sent.clear();
  agent_.BeginShutdown();
  ASSERT_EQ(fleet_.sent.size(), 2u);
  EXPECT_TRUE(fleet_.sent[0].heartbeat().draining());
  EXPECT_EQ(fleet_.sent[1].event().kind(), v1::RankEvent::FAILED);
}

TEST_F(NodeAgentTest, ItHearsOfAStopThatCameBetweenHelloAndWelcomeFirstToo) {
  Attach();
  Start(Gang(1), 1);
  agent_.OnDisconnected();
  agent_.OnConnected();
  EXPECT_FALSE(fleet_.sent.back().hello().draining());
  agent_.BeginShutdown();
  fleet_.sent.clear();
  Welcome(2);
  ASSERT_GE(fleet_.sent.size(), 2u);
  EXPECT_TRUE(fleet_.sent[0].heartbeat().draining());
  AnswerHeartbeat(fleet_.sent[0].heartbeat().sequence());
  agent_.OnDisconnected();
  agent_.OnConnected();
  TakeEvents();
  Welcome(3);
  EXPECT_THAT(TakeEvents(), ::testing::Contains("FAILED j#1/0 root: the worker on node-a was told to stop"))
      << "it was sent after that heartbeat, whose answer does not confirm it";
}

TEST_F(NodeAgentTest, ADrainThatHasLastedIsAStop) {
  Attach();
  Start(Gang(1), 1);
  agent_.BeginDrain();
  TakeEvents();
  agent_.BeginShutdown();
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED j#1/0 root: the worker on node-a was told to stop"));
}

}  // namespace
}  // namespace seqpar
