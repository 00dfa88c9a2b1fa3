// The plan that a mesh and a layout come to, for tests that run one and need no planner.
#ifndef SEQPAR_TESTS_SUPPORT_SHARDED_PLAN_H_
#define SEQPAR_TESTS_SUPPORT_SHARDED_PLAN_H_

#include "common/job/job.h"
#include "common/job/plan.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/mesh.h"
#include "common/parallel/token_layout.h"

namespace seqpar {

// Who holds which tokens and heads, groups and ring neighbours; neither placed nor predicted.
inline Plan ShardedPlan(const JobSpec& job, const Mesh& mesh, LayoutKind layout, CoreKind core) {
  const TokenLayout tokens(mesh, layout, job.tokens);
  const HeadLayout heads(mesh, job.config.heads, job.config.kv_heads);
  Plan plan;
  plan.mesh = mesh;
  plan.strategy = StrategyKind::kHybrid;
  plan.core = core;
  plan.layout = layout;
  for (int rank = 0; rank < mesh.size(); ++rank) {
    const MeshCoord at = mesh.CoordOf(rank);
    RankPlan one;
    one.rank = rank;
    one.tokens = tokens.OfRank(rank);
    one.heads = heads.Of(at.tensor, at.ulysses);
    one.tensor_heads = heads.OfTensor(at.tensor);
    one.tensor_group = mesh.TensorGroup(rank);
    one.ulysses_group = mesh.UlyssesGroup(rank);
    one.ring_group = mesh.RingGroup(rank);
    const int ring = static_cast<int>(one.ring_group.size());
    one.ring_next = one.ring_group[(at.ring + 1) % ring];
    one.ring_previous = one.ring_group[(at.ring + ring - 1) % ring];
    plan.ranks.push_back(one);
  }
  return plan;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_SUPPORT_SHARDED_PLAN_H_
