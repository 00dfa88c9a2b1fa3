#include "coordinator/planner/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/job/proto.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(PlanJob, IsDeterministic) {
  for (const ClusterSnapshot& cluster : {FourSlots(), SlowNetwork()}) {
    const auto a = PlanOn(TextJob(), cluster, {.all_candidates = true});
    const auto b = PlanOn(TextJob(), cluster, {.all_candidates = true});
    ASSERT_TRUE(a.ok()) << a.status();
    ASSERT_TRUE(b.ok());
    EXPECT_EQ(PlanToProto(a->plan).SerializeAsString(), PlanToProto(b->plan).SerializeAsString());
    EXPECT_EQ(ExplanationToProto(a->explanation).SerializeAsString(),
              ExplanationToProto(b->explanation).SerializeAsString());
  }
}

TEST(PlanJob, AJobSaysWhatIsComputedAgain) {
  JobSpec job = WithWorkers(TextJob(), 4, 4);
  job.pass = JobPass::kForwardBackward;
  job.grad_output.seed = 1;
  const auto automatic = PlanOn(job, FourSlots());
  job.recompute = Recompute::kLayer;
  const auto asked = PlanOn(job, FourSlots());
  ASSERT_TRUE(automatic.ok() && asked.ok());
  EXPECT_EQ(automatic->plan.recompute, Recompute::kNone) << "all fits";
  EXPECT_EQ(asked->plan.recompute, Recompute::kLayer);
  EXPECT_THAT(asked->plan.reason, HasSubstr("by running each layer again in backward, as the job asks"));
  EXPECT_LT(asked->plan.prediction.peak_bytes, automatic->plan.prediction.peak_bytes);
  EXPECT_GT(asked->plan.prediction.backward.seconds(), 1.2 * automatic->plan.prediction.backward.seconds());
  EXPECT_EQ(asked->plan.prediction.forward.seconds(), automatic->plan.prediction.forward.seconds());
  // What is asked for is all that is tried.
  ClusterSnapshot small = FourSlots();
  for (DeviceSpec& device : small.nodes[0].devices) {
    device.memory_bytes = (asked->plan.prediction.peak_bytes + automatic->plan.prediction.peak_bytes) / 2;
  }
  job.recompute = Recompute::kNone;
  const auto refused = PlanOn(job, small);
  job.recompute.reset();
  EXPECT_TRUE(PlanOn(job, small).ok());
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("without the limits"));
}

TEST(PlanJob, CalibrationCorrectsPredictions) {
  const JobSpec job = WithStrategy(TextJob(), StrategyKind::kUlysses, 0, 4);
  const auto plain = PlanJob(job, FourSlots(), Calibration(), {});
  ASSERT_TRUE(plain.ok());
  const std::string& kind = plain->plan.node_kind;
  EXPECT_EQ(kind, "cpu slot");
  Calibration calibration;
  calibration.corrections[StepKey(kind, JobPass::kForward)].factor = 2;
  calibration.corrections[StepKey(kind, JobPass::kForward, StrategyKind::kUlysses)].factor = 1.1;
  calibration.corrections[PhaseKey("shard", kind)].factor = 3;
  // Of others: they change nothing here.
  calibration.corrections[StepKey(kind, JobPass::kForwardBackward)].factor = 3;
  calibration.corrections[StepKey(kind, JobPass::kForward, StrategyKind::kRing)].factor = 0.9;
  calibration.corrections[StepKey("cuda", JobPass::kForward)].factor = 3;
  const auto learned = PlanJob(job, FourSlots(), calibration, {});
  ASSERT_TRUE(learned.ok());
  const Prediction &a = plain->plan.prediction, &b = learned->plan.prediction;
  EXPECT_DOUBLE_EQ(b.correction, 2.2);
  EXPECT_NEAR(b.step_seconds, 2.2 * a.step_seconds, 1e-9);
  EXPECT_NEAR(b.compute_seconds, 2.2 * a.compute_seconds, 1e-9);
  EXPECT_NEAR(b.communication_seconds, 2.2 * a.communication_seconds, 1e-9);
  EXPECT_NEAR(b.shard_seconds, 3 * a.shard_seconds, 1e-9);
  EXPECT_THAT(learned->plan.reason, HasSubstr("times are 2.20 of the calibration's"));
  EXPECT_THAT(plain->plan.reason, Not(HasSubstr("calibration")));
}

}  // namespace
}  // namespace seqpar
