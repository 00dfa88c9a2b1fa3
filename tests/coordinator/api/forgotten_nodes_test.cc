// Nodes that have been lost for long enough are forgotten, and may come back.
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/coordinator/api/coordinator_fixture.h"
#include "tests/coordinator/api/engine_fixture.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

constexpr int64_t kForgetUs = 60'000'000, kDayUs = int64_t{24} * 3600 * 1'000'000;

// Asks until it is `done`; false where it was not within half a minute.
bool PollUntil(const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + TestSeconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
  }
  return true;
}

class ForgottenNodesTest : public CoordinatorTest {
 protected:
  void Configure(CoordinatorConfig* config) override { config->engine.forget_us = forget_us_; }

  // Breaks the worker's stream and lets its lease end.
  void Lose(std::unique_ptr<FakeWorker> worker) {
    worker.reset();
    clock_.AdvanceMicros(EngineConfig().lease_us);
    EXPECT_TRUE(PollUntil([this] { return Nodes().at(0).state() == v1::NODE_STATE_LOST; }));
  }
  // When the coordinator sees that a node is lost is not known to the tenth of a second.
  bool PassUntil(const std::function<bool()>& done) {
    return PollUntil([&] {
      clock_.AdvanceMicros(kForgetUs);
      return done();
    });
  }

  int64_t forget_us_ = kForgetUs;
};

TEST_F(ForgottenNodesTest, AreListedUntilTheyHaveBeenLostForSoLong) {
  Lose(Worker({.node = "a"}));
  clock_.AdvanceMicros(kForgetUs / 2);
  Nodes();  // a round of the engine
  EXPECT_EQ(Nodes().size(), 1u);
  ASSERT_TRUE(PassUntil([this] { return Nodes().empty(); }));
  Call call;
  v1::GetNodeRequest request;
  request.set_name("a");
  v1::Node node;
  EXPECT_EQ(cluster_->GetNode(&call.context, request, &node).error_code(), grpc::StatusCode::NOT_FOUND);
  const v1::Job job = Create(Job());
  WaitReason(job.id(), "waits for a node");
  auto again = Worker({.node = "a", .highest_term = 1});
  EXPECT_EQ(Nodes().at(0).state(), v1::NODE_STATE_READY);
  EXPECT_EQ(WaitEnded(job.id()).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(ForgottenNodesTest, AreNotThoseThatCameBackMeanwhile) {
  Lose(Worker({.node = "a"}));
  auto again = Worker({.node = "a"});
  for (int64_t us = 0; us < 3 * kForgetUs; us += 1'000'000) {
    clock_.AdvanceMicros(1'000'000);
    again->Heartbeat(us);
    ASSERT_TRUE(again->WaitHeartbeatAnswer(us));
  }
  EXPECT_EQ(Nodes().at(0).state(), v1::NODE_STATE_READY);
}

TEST_F(ForgottenNodesTest, AreListedAsDrainedForAsLongAsTheyAre) {
  auto worker = Worker({.node = "a"});
  Drain("a");
  Lose(std::move(worker));
  ASSERT_TRUE(PassUntil([this] { return Nodes().at(0).devices().empty(); }));
  EXPECT_TRUE(Nodes()[0].drained());
  Drain("a", /*undo=*/true);
  EXPECT_TRUE(Nodes().empty());
}

class KeptNodesTest : public ForgottenNodesTest {
 protected:
  KeptNodesTest() { forget_us_ = 0; }
};

TEST_F(KeptNodesTest, AreListedForGood) {
  Lose(Worker({.node = "a"}));
  for (int day = 0; day < 3; ++day) {
    clock_.AdvanceMicros(kDayUs);
    EXPECT_EQ(Nodes().size(), 1u);
  }
}

// One link to a node that is here too, and one to a node that this coordinator never hears of.
TEST(ForgottenLinks, AreThoseOfNodesThatAreNotHere) {
  TempFolder folder;
  {
    WriteBatch batch;
    batch.settings["links"] = LinksToText({{EndsOf("cpu", "a", "b"), LinkFigure{"key", {1e-6, 1e9}, 1}},
                                           {EndsOf("cpu", "a", "c"), LinkFigure{"key", {1e-6, 1e9}, 1}}});
    std::vector<std::string> taken;
    ASSERT_TRUE((*Store::Open(folder.path()))->Write(batch, &taken).ok());
  }
  EngineConfig config = EngineHarness::Config();
  config.lease_us = kDayUs;
  config.forget_us = kForgetUs;
  EngineHarness harness(config, {}, 1, folder.path());
  v1::Hello hello;
  hello.set_node("b");
  *hello.add_devices() = EngineHarness::Device();
  const auto link = std::make_shared<CheckingLink>(&harness.store_);
  ASSERT_TRUE(harness.engine_.OnHello(hello, 2, link).ok());
  ASSERT_TRUE(link->WaitFor(v1::CoordinatorMessage::kWelcome));
  ASSERT_EQ(harness.engine_.Nodes({})[0].links_size(), 2);
  harness.clock_.AdvanceMicros(kForgetUs);
  ASSERT_TRUE(PollUntil([&] { return harness.engine_.Nodes({})[0].links_size() == 1; }));
  EXPECT_EQ(harness.engine_.Nodes({})[0].links(0).peer(), "b");
  harness.engine_.Nodes({});  // what came before it is on disk
  EXPECT_EQ(LinksFromText(*harness.store_.Setting("links")).size(), 1u);
}

}  // namespace
}  // namespace seqpar
