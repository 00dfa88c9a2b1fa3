// The strategies of sequence parallelism, as a table: a strategy is the axes of the mesh that it uses and the
// way its attention core is put together. Adding one is a core and a line here.
#ifndef SEQPAR_COMMON_ATTENTION_STRATEGIES_H_
#define SEQPAR_COMMON_ATTENTION_STRATEGIES_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "common/attention/core.h"
#include "common/job/job.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/mesh.h"
#include "common/parallel/token_layout.h"

namespace seqpar {

// Which attention a rank of a mesh computes.
struct AttentionPlan {
  StrategyKind strategy = StrategyKind::kHybrid;
  CoreKind core = CoreKind::kRing;  // along the ring axis of a hybrid
  TokenLayout tokens;               // carries the mesh
  HeadLayout heads;
  Mask mask;
  AttentionShape shape;
  int rank = 0;
  bool inspect = false;  // keeps what a view of backward shows apart from what it came from
};

// The rank's groups along the axes of the mesh; null where the axis has one rank. Not owned.
struct AttentionGroups {
  Communicator* ulysses = nullptr;
  Communicator* ring = nullptr;
};

struct Strategy {
  StrategyKind kind;
  bool tensor, ulysses, ring;          // axes that it may use
  std::optional<CoreKind> along_ring;  // what computes along the ring axis; none: what the plan says
  std::unique_ptr<AttentionCore> (*make_core)(const AttentionPlan&, const RankStreams&,
                                              const AttentionGroups&);
};

// Every strategy but kAuto, in the order in which the planner prefers them.
const std::vector<Strategy>& Strategies();
// REQUIRES: kind is not kAuto.
const Strategy& StrategyOf(StrategyKind kind);

// The simplest strategy that the mesh is an instance of: megatron_sp, ulysses, ring or gather where it uses
// one axis, hybrid where it uses several. One rank is a ring of one.
StrategyKind StrategyOfMesh(const Mesh& mesh, CoreKind core);

// INVALID_ARGUMENT with every violation (fields "parallelism.tensor", ...) and the nearest legal value:
// degrees below 1, more ranks over tensor x ulysses than query heads, an inner ring that does not divide the
// ring, an axis that the strategy does not have.
absl::Status CheckMesh(StrategyKind strategy, const Mesh& mesh, int heads);

// The core of plan.rank, or CheckMesh's errors.
absl::StatusOr<std::unique_ptr<AttentionCore>> MakeAttention(const AttentionPlan& plan,
                                                             const RankStreams& streams,
                                                             const AttentionGroups& groups);

// The tiles that the core of plan.rank calls the attention kernels with in every pass, in this order; without
// data (scheduled_tiles.h). Nothing is made or allocated. CheckMesh's errors. `plan` must outlive them.
struct AttentionCalls {
  std::vector<AttentionTile> forward, backward;
};
absl::StatusOr<AttentionCalls> AttentionTiles(const AttentionPlan& plan);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_ATTENTION_STRATEGIES_H_
