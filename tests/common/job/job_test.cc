#include "common/job/job.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/device/device_models.h"

namespace seqpar {
namespace {

JobSpec SmallJob() {
  JobSpec job;
  job.config.hidden_size = 6;
  job.config.heads = 4;
  job.config.kv_heads = 2;
  job.config.head_dim = 3;
  job.config.intermediate_size = 5;
  job.config.layers = 2;
  job.config.mlp = MlpKind::kSwiglu;
  job.batch = 2;
  job.tokens = 7;
  return job;
}

TEST(JobNames, AreTheWordsOfTheDesign) {
  EXPECT_STREQ(StateName(JobState::kSucceeded), "SUCCEEDED");
  EXPECT_STREQ(PhaseName(JobPhase::kSubmit), "submit");
  EXPECT_STREQ(PhaseName(JobPhase::kReport), "report");
  EXPECT_STREQ(StrategyName(StrategyKind::kMegatronSp), "megatron_sp");
  EXPECT_STREQ(CoreName(CoreKind::kGather), "gather");
  EXPECT_STREQ(RecomputeName(Recompute::kLayer), "layer");
}

TEST(JobState, OnlyThreeStatesAreAnEnd) {
  EXPECT_FALSE(HasEnded(JobState::kPending));
  EXPECT_FALSE(HasEnded(JobState::kRunning));
  EXPECT_TRUE(HasEnded(JobState::kSucceeded));
  EXPECT_TRUE(HasEnded(JobState::kFailed));
  EXPECT_TRUE(HasEnded(JobState::kCancelled));
}

TEST(CountModelFlops, ForwardFollowsTheFormulas) {
  const JobSpec job = SmallJob();
  const ModelFlops flops = CountModelFlops(job);
  const double attention = 2 * (4.0 * 2 * (7 * 8 / 2) * 3 * 4);  // layers, 4 b A Dh H
  const double projections = 2.0 * 2 * 7 * 6 * (12 + 2 * 6) + 2.0 * 2 * 7 * 12 * 6;
  const double mlp = 6.0 * 2 * 7 * 6 * 5;
  EXPECT_EQ(flops.attention_forward, attention);
  EXPECT_EQ(flops.linear_forward, 2 * (projections + mlp));
  EXPECT_EQ(flops.total, flops.attention_forward + flops.linear_forward);
}

TEST(CountModelFlops, BackwardIsTwoAndAHalfTimesAttentionAndTwiceTheRest) {
  JobSpec job = SmallJob();
  job.pass = JobPass::kForwardBackward;
  const ModelFlops flops = CountModelFlops(job);
  EXPECT_EQ(flops.total, 3.5 * flops.attention_forward + 3 * flops.linear_forward);
}

TEST(CountModelFlops, CountsTheMaskAndTheMlp) {
  JobSpec job = SmallJob();
  const double causal = CountModelFlops(job).attention_forward;
  job.mask.kind = MaskKind::kFull;
  EXPECT_EQ(CountModelFlops(job).attention_forward, causal * 49 / 28);
  job.mask.documents = {3, 4};
  EXPECT_EQ(CountModelFlops(job).attention_forward, causal * 25 / 28);

  const double gated = CountModelFlops(job).linear_forward;
  job.config.mlp = MlpKind::kGelu;
  const double ungated = CountModelFlops(job).linear_forward;
  job.config.mlp = MlpKind::kNone;
  EXPECT_EQ(gated - ungated, 2 * 2.0 * 2 * 7 * 6 * 5);
  EXPECT_EQ(ungated - CountModelFlops(job).linear_forward, 2 * 4.0 * 2 * 7 * 6 * 5);
}

TEST(DeviceKindTest, JobsAskForKindsThatThereAre) {
  std::vector<std::string> asked;
  for (const DeviceKind kind : {DeviceKind::kCpu, DeviceKind::kCuda}) asked.push_back(DeviceKindName(kind));
  EXPECT_EQ(asked, DeviceKinds());
}

}  // namespace
}  // namespace seqpar
