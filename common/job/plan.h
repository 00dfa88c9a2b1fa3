// A plan as a value: everything that a gang does. The wire form is proto/seqpar/v1/plan.proto.
#ifndef SEQPAR_COMMON_JOB_PLAN_H_
#define SEQPAR_COMMON_JOB_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/job/job.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/mesh.h"
#include "common/parallel/token_layout.h"

namespace seqpar {

struct RankPlan {
  int rank = 0;
  TokenShare tokens;
  HeadRange heads;         // attention
  HeadRange tensor_heads;  // projections
  std::vector<int> tensor_group, ulysses_group, ring_group;
  int ring_next = 0, ring_previous = 0;  // world ranks
  int64_t predicted_peak_bytes = 0;
  double attended_pairs = 0;
  std::string node;  // "" until placed
  int device = 0;
};

struct PassPrediction {
  double compute_seconds = 0;
  double communication_seconds = 0;  // exposed

  double seconds() const { return compute_seconds + communication_seconds; }
};

struct Prediction {
  double step_seconds = 0;
  double compute_seconds = 0;
  double communication_seconds = 0;  // exposed
  int64_t peak_bytes = 0;
  int64_t bytes_sent = 0;
  double model_flops = 0;
  // They add up to the seconds above. Backward includes what the plan computes again; 0 where there is none.
  PassPrediction forward, backward;
  double attention_seconds = 0, product_seconds = 0, pointwise_seconds = 0;  // parts of compute_seconds
  double bootstrap_seconds = 0, shard_seconds = 0, verify_seconds = 0, merge_seconds = 0;  // beside the step
  double correction = 1;  // what finished jobs multiplied into the step's seconds
};

struct Plan {
  Mesh mesh;
  StrategyKind strategy = StrategyKind::kRing;  // the name that the mesh has
  CoreKind core = CoreKind::kRing;
  LayoutKind layout = LayoutKind::kContiguous;
  Recompute recompute = Recompute::kNone;
  std::vector<RankPlan> ranks;
  Prediction prediction;
  std::string reason;
  std::string node_kind;  // what finished jobs teach is kept by it

  // The token layout made of the ranks' shares.
  TokenLayout MakeTokenLayout() const;
};

struct Candidate {
  Mesh mesh;
  StrategyKind strategy = StrategyKind::kRing;
  CoreKind core = CoreKind::kRing;
  LayoutKind layout = LayoutKind::kContiguous;
  Recompute recompute = Recompute::kNone;
  bool feasible = false;
  Prediction prediction;
  std::string reason;
};

struct Rejection {
  std::string reason;  // "exceeds memory", "more ranks than heads", ...
  int64_t count = 0;
  Candidate nearest;
};

struct Explanation {
  std::vector<Candidate> best;  // at most 11, the chosen one first
  int64_t feasible = 0;
  int64_t considered = 0;
  std::vector<Rejection> rejected;
  std::vector<Candidate> all;  // up to 5,000
  Rejection slower;            // feasible, beyond `best`: how many, and the fastest of them
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_PLAN_H_
