// What a node says, hears and sends again over its streams, and its lease.
#include <limits>

#include "tests/worker/daemon/node_agent_fixture.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(NodeAgentTest, GivesUpAStreamToACoordinatorThatIsNotTheLatest) {
  agent_.OnConnected();
  Welcome(5);
  agent_.OnConnected();
  Welcome(4);
  ASSERT_EQ(fleet_.broken.size(), 1u);
  EXPECT_THAT(fleet_.broken[0], HasSubstr("term 4 is over"));
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

// An executor looks at its own clock: it may be gone before this node's agent looked at its.
TEST_F(NodeAgentTest, AnExecutorThatEndedByItsLeaseWasLostAndDidNotFail) {
  Attach();
  Start(Gang(1));
  agent_.OnDisconnected();
  agent_.OnExecutorExit({"j", 1, 0}, {"exited with code 4 (its lease was over)", true});
  agent_.OnExecutorExit({"j", 1, 1}, {"exited with code 1"});
  fleet_.sent.clear();
  Attach();
  std::vector<std::string> reasons;
  for (const v1::WorkerMessage& message : fleet_.sent) {
    if (message.event().kind() != v1::RankEvent::FAILED) continue;
    reasons.push_back(ReasonOf(StatusFromProto(message.event().error())));
  }
  EXPECT_THAT(reasons, ElementsAre(reason::kRankLost, reason::kRankFailed));
  EXPECT_THAT(TakeEvents(), ::testing::Contains("FAILED j#1/0 root: the lease of node-a is over"));
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
  agent_.OnExecutorExit({"j", 1, 0}, {"exited with code 0"});
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

TEST_F(NodeAgentTest, AHelloTellsTheAttemptsThatWereSeen) {
  Attach();
  Start(Gang(3), 1);
  agent_.OnExecutorExit({"j", 3, 0}, {"exited with code 1"});
  agent_.OnDisconnected();
  fleet_.sent.clear();
  agent_.OnConnected();
  EXPECT_EQ(fleet_.sent[0].hello().highest_attempts().at("j"), 3);
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

}  // namespace
}  // namespace seqpar
