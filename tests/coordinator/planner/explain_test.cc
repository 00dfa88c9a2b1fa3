#include "coordinator/planner/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "coordinator/planner/planner.h"
#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Explanation, CountsRejectionsAndNamesTheNearestMisses) {
  const auto planned = PlanOn(LlamaJob(1 << 20), SixteenNodes());
  ASSERT_TRUE(planned.ok()) << planned.status();
  const std::vector<Rejection>& rejected = planned->explanation.rejected;
  ASSERT_EQ(rejected.size(), 2u);
  EXPECT_EQ(rejected[0].reason, "exceeds the memory of a device");
  EXPECT_GT(rejected[0].count, 10);
  EXPECT_GT(rejected[0].nearest.prediction.peak_bytes, H200().memory_bytes / 20 * 19);
  EXPECT_LT(rejected[0].nearest.prediction.peak_bytes, H200().memory_bytes * 11 / 10);
  EXPECT_THAT(rejected[0].nearest.reason, HasSubstr("may be used"));
  EXPECT_EQ(rejected[1].reason, "tensor x ulysses exceeds the heads");
  EXPECT_EQ(rejected[1].nearest.mesh.tensor * rejected[1].nearest.mesh.ulysses, 36);
  EXPECT_THAT(rejected[1].nearest.reason, HasSubstr("cuts 32 heads into 36 parts"));
}

TEST(Explanation, CountsTheFeasibleBeyondTheBestAndNamesTheFastest) {
  const auto planned = PlanOn(LlamaJob(1 << 20), SixteenNodes(), {.all_candidates = true});
  ASSERT_TRUE(planned.ok()) << planned.status();
  const Explanation& x = planned->explanation;
  ASSERT_EQ(x.best.size(), 11u);
  EXPECT_EQ(x.slower.count, x.feasible - 11);
  EXPECT_EQ(x.slower.nearest.mesh.ToString(), x.all[11].mesh.ToString());
  EXPECT_EQ(x.slower.nearest.prediction.step_seconds, x.all[11].prediction.step_seconds);
  EXPECT_FALSE(x.slower.nearest.reason.empty());

  JobSpec one = TextJob();
  one.max_workers = 1;
  const auto alone = PlanOn(one, FourSlots());
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_LE(alone->explanation.feasible, 11);
  EXPECT_EQ(alone->explanation.slower.count, 0);
}

TEST(Explanation, SaysWhatMakesOthersSlower) {
  const auto planned = PlanOn(WithHeads(TextJob(), 5, 5), FourSlots(), {.all_candidates = true});
  ASSERT_TRUE(planned.ok()) << planned.status();
  std::set<std::string> causes;
  for (const Candidate& c : planned->explanation.all) {
    const size_t colon = c.reason.find("slower: ");
    if (colon != std::string::npos) causes.insert(c.reason.substr(colon + 8));
  }
  EXPECT_THAT(causes, ::testing::IsSupersetOf(
                          {"5 heads do not divide by 2", "3 ranks share the work", "1 rank does the work",
                           "the contiguous layout gives its busiest rank more of the mask"}));
}

TEST(Explanation, HasEveryCandidateWhereAsked) {
  const auto planned = PlanOn(TextJob(), FourSlots(), {.all_candidates = true});
  ASSERT_TRUE(planned.ok()) << planned.status();
  const Explanation& x = planned->explanation;
  EXPECT_EQ(static_cast<int64_t>(x.all.size()), x.considered);
  for (const Candidate& c : x.all) EXPECT_FALSE(c.reason.empty()) << c.mesh.ToString();
  for (size_t i = 2; i < x.best.size(); ++i) {
    EXPECT_LE(x.best[i - 1].prediction.step_seconds, x.best[i].prediction.step_seconds);
  }
  EXPECT_TRUE(PlanOn(TextJob(), FourSlots())->explanation.all.empty());
}

Scored AScored(int ring, double seconds, const std::string& kind = "cpu") {
  Scored scored;
  scored.kind = kind;
  scored.candidate.mesh.ring = scored.candidate.mesh.inner = ring;
  scored.candidate.strategy = StrategyKind::kRing;
  scored.candidate.feasible = true;
  scored.candidate.prediction.step_seconds = scored.candidate.prediction.compute_seconds = seconds;
  return scored;
}

// What is near the chosen one, which is itself slower than the fastest, need not tie: it was out of the
// question, and may be the simpler one.
TEST(Explanation, TiesAreWithTheFastest) {
  SearchResult result;
  result.feasible = {AScored(4, 101.5), AScored(8, 100), AScored(2, 103), AScored(16, 103.5)};
  const std::vector<Candidate> best = MakeExplanation(TextJob(), result, false).best;
  ASSERT_EQ(best.size(), 4u);
  EXPECT_THAT(best[0].reason,
              HasSubstr("ties with the fastest, ring R8 contiguous (1.5 % behind), with fewer "));
  EXPECT_EQ(best[1].reason, "a tie (1.5 % faster), with more devices");
  EXPECT_EQ(best[2].reason, "1.5 % slower: 2 ranks share the work");
  EXPECT_EQ(best[3].reason, "2.0 % slower: its busiest rank computes more");
}

TEST(Explanation, SlowerDevicesAreNamed) {
  SearchResult result;
  result.feasible = {AScored(2, 1, "cuda"), AScored(8, 3, "cpu")};
  EXPECT_EQ(MakeExplanation(TextJob(), result, false).best[1].reason, "200.0 % slower: runs on cpu devices");
}

TEST(Explanation, WhatJobsTaughtIsOfTimesAndNotOfMemory) {
  SearchResult result;
  result.feasible = {AScored(4, 1)};
  Candidate& chosen = result.feasible[0].candidate;
  chosen.prediction.correction = 1.25;
  chosen.recompute = Recompute::kLayer;
  EXPECT_THAT(WhyChosen(TextJob(), result),
              HasSubstr(" a device, by running each layer again in backward; times are 1.25 of the "
                        "calibration's, as finished jobs taught"));
}

// Every kind of mesh is looked at; rings that span nodes also as rings of rings.
TEST(Explanation, ReachesEveryStrategy) {
  const auto planned = PlanOn(LlamaJob(1 << 20), SlowNetwork(), {.all_candidates = true});
  ASSERT_TRUE(planned.ok()) << planned.status();
  std::set<std::string> strategies;
  bool double_ring = false, gather_hybrid = false, three_axes = false;
  for (const Candidate& c : planned->explanation.all) {
    strategies.insert(StrategyName(c.strategy));
    double_ring = double_ring || (c.mesh.ring == 32 && c.mesh.inner == 8);
    gather_hybrid = gather_hybrid || (c.strategy == StrategyKind::kHybrid && c.core == CoreKind::kGather);
    three_axes = three_axes || (c.mesh.tensor > 1 && c.mesh.ulysses > 1 && c.mesh.ring > 1);
  }
  EXPECT_THAT(strategies, ElementsAre("gather", "hybrid", "megatron_sp", "ring", "ulysses"));
  EXPECT_TRUE(double_ring && gather_hybrid && three_axes);
}

}  // namespace
}  // namespace seqpar
