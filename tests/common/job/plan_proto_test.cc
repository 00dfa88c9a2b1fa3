#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "common/base/status.h"
#include "common/job/proto.h"
#include "tests/support/sharded_plan.h"

namespace seqpar {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

// Placed, and with a prediction.
Plan MakePlan(const Mesh& mesh, LayoutKind kind, int64_t tokens) {
  JobSpec job;
  job.tokens = tokens;
  job.config.heads = 12;
  job.config.kv_heads = 3;
  Plan plan = ShardedPlan(job, mesh, kind, CoreKind::kGather);
  plan.recompute = Recompute::kAttention;
  plan.prediction = {1.5, 1.25, 0.25, 1000, 2000, 3e9, {0.5, 0.125}, {0.75, 0.25}};
  plan.reason = "because";
  for (RankPlan& rank : plan.ranks) {
    rank.predicted_peak_bytes = 100 + rank.rank;
    rank.attended_pairs = 7.0 * rank.rank;
    rank.node = "node-" + std::to_string(rank.rank % 2);
    rank.device = rank.rank / 2;
  }
  return plan;
}

TEST(PlanProto, RoundTripsEveryMeshAndLayout) {
  for (const LayoutKind kind : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    for (const Mesh& mesh :
         {Mesh{1, 1, 1, 1}, Mesh{2, 1, 1, 1}, Mesh{1, 3, 1, 1}, Mesh{1, 1, 4, 2}, Mesh{2, 2, 3, 3}}) {
      for (const int64_t tokens : {1, 5, 131}) {
        SCOPED_TRACE(mesh.ToString() + " " + LayoutName(kind) + " " + std::to_string(tokens));
        const v1::Plan proto = PlanToProto(MakePlan(mesh, kind, tokens));
        const absl::StatusOr<Plan> plan = PlanFromProto(proto);
        ASSERT_TRUE(plan.ok()) << plan.status();
        EXPECT_EQ(plan->mesh, mesh);
        EXPECT_EQ(plan->MakeTokenLayout().tokens(), tokens);
        EXPECT_TRUE(MessageDifferencer::Equals(PlanToProto(*plan), proto));
      }
    }
  }
}

struct BadPlanCase {
  const char* what;
  void (*change)(v1::Plan*);
  const char* message;
};

TEST(PlanProto, RefusesWhatContradictsItself) {
  const BadPlanCase cases[] = {
      {"no mesh", [](v1::Plan* p) { p->clear_mesh(); }, "a degree of its mesh is 0"},
      {"inner", [](v1::Plan* p) { p->mutable_mesh()->set_inner(3); }, "inner 3 does not divide ring 2"},
      {"a rank too few", [](v1::Plan* p) { p->mutable_ranks()->RemoveLast(); }, "it has 3 ranks"},
      {"huge degrees",
       [](v1::Plan* p) {
         p->mutable_mesh()->set_tensor(1 << 20);
         p->mutable_mesh()->set_ulysses(1 << 20);
       },
       "it has 4 ranks"},
      {"order", [](v1::Plan* p) { p->mutable_ranks(1)->set_rank(2); }, "rank 2 stands at place 1"},
      {"group", [](v1::Plan* p) { p->mutable_ranks(1)->set_ring_group(0, 0); }, "the groups of rank 1"},
      {"neighbour", [](v1::Plan* p) { p->mutable_ranks(2)->set_ring_next(3); },
       "the ring neighbours of rank 2"},
      {"heads", [](v1::Plan* p) { p->mutable_ranks(3)->mutable_heads()->set_q_end(99); },
       "the attention heads of rank 3"},
      {"a token short",
       [](v1::Plan* p) {
         v1::Segment* s = p->mutable_ranks(0)->mutable_segments(0);
         s->set_end(s->end() - 1);
       },
       "exactly once"},
      {"a token twice",
       [](v1::Plan* p) {
         v1::Segment* s = p->mutable_ranks(3)->mutable_segments(0);
         s->set_begin(s->begin() - 1);
       },
       ""},
      {"stride", [](v1::Plan* p) { p->mutable_ranks(0)->mutable_segments(0)->set_stride(0); },
       "of rank 0 do not ascend"},
      {"negative", [](v1::Plan* p) { p->mutable_ranks(0)->mutable_segments(0)->set_begin(-1); },
       "of rank 0 do not ascend"},
      {"stride beside another", [](v1::Plan* p) { p->mutable_ranks(0)->mutable_segments(0)->set_stride(2); },
       "strides 2 and 1 together"},
      {"endless stride",
       [](v1::Plan* p) {
         p->mutable_ranks(0)->mutable_segments(0)->set_stride(std::numeric_limits<int64_t>::max());
       },
       "exactly once"},
      {"of a newer build", [](v1::Plan* p) { p->set_recompute(static_cast<v1::Recompute>(99)); },
       "plan.recompute is 99"},
      {"endless", [](v1::Plan* p) { p->mutable_ranks(0)->mutable_segments(0)->set_end(int64_t{1} << 62); },
       "ends at"},
  };
  for (const BadPlanCase& c : cases) {
    SCOPED_TRACE(c.what);
    v1::Plan proto = PlanToProto(MakePlan(Mesh{1, 2, 2, 2}, LayoutKind::kContiguous, 31));
    c.change(&proto);
    const absl::Status status = PlanFromProto(proto).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ReasonOf(status), reason::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
}

// As many tokens as a plan may have: a look at each of them would take a gigabyte and most of a minute.
TEST(PlanProto, ChecksALongPlanByItsSegments) {
  constexpr int64_t kTokens = int64_t{1} << 33;
  for (const LayoutKind kind : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    SCOPED_TRACE(LayoutName(kind));
    for (int i = 0; i < 100; ++i) {
      const v1::Plan proto = PlanToProto(MakePlan(Mesh{2, 2, 8, 2}, kind, kTokens - i));
      EXPECT_TRUE(PlanFromProto(proto).ok());
      v1::Plan bad = proto;
      v1::Segment* segment = bad.mutable_ranks(i % 32)->mutable_segments(0);
      segment->set_begin(segment->begin() + segment->stride());  // its first token is missing
      EXPECT_THAT(std::string(PlanFromProto(bad).status().message()), HasSubstr("exactly once"));
    }
    const v1::Plan more = PlanToProto(MakePlan(Mesh{1, 1, 4, 1}, kind, kTokens + 1));
    EXPECT_FALSE(PlanFromProto(more).ok());
  }
}

TEST(ExplanationProto, CarriesEveryPart) {
  Candidate candidate;
  candidate.mesh = Mesh{1, 2, 3, 3};
  candidate.strategy = StrategyKind::kUlysses;
  candidate.layout = LayoutKind::kStriped;
  candidate.feasible = true;
  candidate.prediction.step_seconds = 2;
  candidate.reason = "slower";
  Explanation explanation;
  explanation.best = {candidate, candidate};
  explanation.feasible = 2;
  explanation.considered = 9;
  explanation.rejected = {{"exceeds memory", 7, candidate}};
  explanation.all = {candidate};
  const v1::Explanation proto = ExplanationToProto(explanation);
  EXPECT_EQ(proto.best_size(), 2);
  EXPECT_EQ(proto.best(0).mesh().ulysses(), 2);
  EXPECT_EQ(proto.best(1).layout(), v1::LAYOUT_STRIPED);
  EXPECT_EQ(proto.best(1).prediction().step_seconds(), 2);
  EXPECT_EQ(proto.considered(), 9);
  EXPECT_EQ(proto.rejected(0).count(), 7);
  EXPECT_EQ(proto.rejected(0).nearest().reason(), "slower");
  EXPECT_EQ(proto.all_size(), 1);
}

}  // namespace
}  // namespace seqpar
