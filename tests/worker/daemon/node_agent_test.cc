// What becomes of the ranks that a node is given, and of their devices.
#include "tests/worker/daemon/node_agent_fixture.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

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
  agent_.OnExecutorExit({"j", 1, 1}, {"was killed by signal 9 (Killed)"});
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED j#1/0 follows: rank 1 is gone",
                                        "FAILED j#1/1 root: its executor was killed by signal 9 (Killed)"));
  EXPECT_THAT(TakeAsked(), ElementsAre("abort j#1/1"))
      << "ranks of the gang on this node are stopped at once";
}

TEST_F(NodeAgentTest, ABusyDeviceIsRefusedByName) {
  Attach();
  Start(Gang(1), 1);
  TakeEvents();
  Start(Gang(1, 1, "other"), 1);
  EXPECT_THAT(TakeEvents(), ElementsAre("FAILED other#1/0 root: it cannot start: device 0 is busy with j"));
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
  agent_.OnExecutorExit({"j", 1, 0}, {"exited with code 0", false, 77});
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
  agent_.OnExecutorExit(key, {"exited with code 0"});
  agent_.OnDisconnected();
  EXPECT_THAT(observer_.seen, ElementsAre("alone", "attached", "started j#1/0 on 0", "progressed j#1/0",
                                          "answered after 30", "reported j#1/0", "ended j#1/0", "alone"));
}

// A gang that measures a link is stopped and replaced as any other, and nobody takes it for a job.
TEST_F(NodeAgentTest, AJobGetsTheDeviceOfALinkThatIsMeasured) {
  Attach();
  v1::CoordinatorMessage start;
  *start.mutable_start()->mutable_gang() = Gang(1, 1, "link-1-1");
  start.mutable_start()->mutable_measure_link()->set_ranks(2);
  start.mutable_start()->add_ranks();
  agent_.OnMessage(start);
  Stop(Gang(1, 1, "link-1-1"), {0});
  Start(Gang(1), 1);
  EXPECT_THAT(TakeAsked(), ElementsAre("start link-1-1#1/0", "abort link-1-1#1/0"));
  agent_.OnExecutorExit({"link-1-1", 1, 0}, {"exited with code 1"});
  EXPECT_THAT(TakeAsked(), ElementsAre("start j#1/0"));
  EXPECT_THAT(observer_.seen, ElementsAre("alone", "attached", "ended link-1-1#1/0", "started j#1/0 on 0"));
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
