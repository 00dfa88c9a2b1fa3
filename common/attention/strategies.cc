#include "common/attention/strategies.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/attention/scheduled_attention.h"
#include "common/attention/scheduled_tiles.h"
#include "common/attention/ulysses_attention.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

using CorePtr = std::unique_ptr<AttentionCore>;

// Along the ring axis: the ring share's tokens with the heads of (tensor, ulysses).
struct RingAxis {
  explicit RingAxis(const AttentionPlan& plan)
      : gather(StrategyOf(plan.strategy).along_ring.value_or(plan.core) == CoreKind::kGather) {
    const Mesh& mesh = plan.tokens.mesh();
    const MeshCoord at = mesh.CoordOf(plan.rank);
    heads = plan.heads.Of(at.tensor, at.ulysses);
    for (int r = 0; r < mesh.ring; ++r) shares.push_back(plan.tokens.OfRing(r));
    schedule = gather ? GatherSchedule(shares, plan.mask, at.ring)
                      : RingSchedule(shares, plan.mask, at.ring, std::min(mesh.inner, mesh.ring));
  }

  const bool gather;
  HeadRange heads;
  std::vector<TokenShare> shares;
  KvSchedule schedule;
};

CorePtr MakeRingCore(const AttentionPlan& plan, const RankStreams& streams, const AttentionGroups& groups) {
  RingAxis axis(plan);
  return MakeScheduledAttention(streams, groups.ring, plan.shape, axis.heads, std::move(axis.shares),
                                plan.mask, std::move(axis.schedule),
                                axis.gather ? Operation::kGather : Operation::kRing);
}

// Ulysses around what computes along the ring axis; where either axis has one rank, the other alone.
CorePtr MakeHybridCore(const AttentionPlan& plan, const RankStreams& streams, const AttentionGroups& groups) {
  CorePtr inner = MakeRingCore(plan, streams, groups);
  const Mesh& mesh = plan.tokens.mesh();
  if (mesh.ulysses == 1) return inner;
  const MeshCoord at = mesh.CoordOf(plan.rank);
  std::vector<HeadRange> heads;
  std::vector<TokenShare> shares;
  for (int u = 0; u < mesh.ulysses; ++u) {
    heads.push_back(plan.heads.Of(at.tensor, u));
    shares.push_back(plan.tokens.OfTensorGroup(at.ring, u));
  }
  return MakeUlyssesAttention(streams, groups.ulysses, plan.shape, plan.heads.OfTensor(at.tensor),
                              std::move(heads), std::move(shares), plan.inspect, std::move(inner));
}

}  // namespace

const std::vector<Strategy>& Strategies() {
  static const auto& table = *new std::vector<Strategy>{
      // kind                      tensor ulysses ring  along_ring       core
      {StrategyKind::kMegatronSp, true, false, false, CoreKind::kRing, MakeRingCore},
      {StrategyKind::kUlysses, false, true, false, std::nullopt, MakeHybridCore},
      {StrategyKind::kRing, false, false, true, CoreKind::kRing, MakeRingCore},
      {StrategyKind::kGather, false, false, true, CoreKind::kGather, MakeRingCore},
      {StrategyKind::kHybrid, true, true, true, std::nullopt, MakeHybridCore},
  };
  return table;
}

const Strategy& StrategyOf(StrategyKind kind) {
  for (const Strategy& strategy : Strategies()) {
    if (strategy.kind == kind) return strategy;
  }
  SEQPAR_CHECK(false);
  std::abort();
}

StrategyKind StrategyOfMesh(const Mesh& mesh, CoreKind core) {
  if (mesh.ulysses == 1 && mesh.ring == 1 && mesh.tensor > 1) return StrategyKind::kMegatronSp;
  if (mesh.tensor == 1 && mesh.ring == 1 && mesh.ulysses > 1) return StrategyKind::kUlysses;
  if (mesh.tensor > 1 || mesh.ulysses > 1) return StrategyKind::kHybrid;
  return core == CoreKind::kGather ? StrategyKind::kGather : StrategyKind::kRing;
}

absl::Status CheckMesh(StrategyKind kind, const Mesh& mesh, int heads) {
  const Strategy& strategy = StrategyOf(kind);
  std::vector<Violation> violations;
  const auto check_axis = [&](const char* field, int degree, bool used) {
    if (degree < 1) {
      violations.push_back({field, absl::StrCat("is ", degree, ", must be at least 1"), "1"});
    } else if (degree > 1 && !used) {
      violations.push_back(
          {field, absl::StrCat("is ", degree, ", but this strategy does not use the axis"), "1"});
    }
  };
  check_axis("parallelism.tensor", mesh.tensor, strategy.tensor);
  check_axis("parallelism.ulysses", mesh.ulysses, strategy.ulysses);
  check_axis("parallelism.ring", mesh.ring, strategy.ring);
  if (mesh.tensor >= 1 && mesh.ulysses >= 1 && int64_t{mesh.tensor} * mesh.ulysses > heads) {
    // Ulysses gives way first, unless tensor alone is already too much; the ring has no such bound.
    const bool tensor_fits = mesh.tensor <= heads;
    violations.push_back({tensor_fits && mesh.ulysses > 1 ? "parallelism.ulysses" : "parallelism.tensor",
                          absl::StrCat("tensor x ulysses is ", mesh.tensor, " x ", mesh.ulysses,
                                       ", more ranks than the ", heads, " query heads"),
                          absl::StrCat("tensor ", std::min(mesh.tensor, heads), " x ulysses ",
                                       tensor_fits ? heads / mesh.tensor : 1)});
  }
  if (mesh.ring >= 1 && (mesh.inner < 1 || mesh.ring % mesh.inner != 0)) {
    int nearest = 1;
    for (int d = 1; d <= mesh.ring; ++d) {
      if (mesh.ring % d == 0 && std::abs(d - mesh.inner) < std::abs(nearest - mesh.inner)) nearest = d;
    }
    violations.push_back({"parallelism.inner",
                          absl::StrCat("is ", mesh.inner, ", does not divide ring ", mesh.ring),
                          absl::StrCat(nearest)});
  }
  if (violations.empty()) return absl::OkStatus();
  return InvalidInput(reason::kInvalidArgument, violations);
}

absl::StatusOr<CorePtr> MakeAttention(const AttentionPlan& plan, const RankStreams& streams,
                                      const AttentionGroups& groups) {
  SEQPAR_RETURN_IF_ERROR(CheckMesh(plan.strategy, plan.tokens.mesh(), plan.heads.heads()));
  return StrategyOf(plan.strategy).make_core(plan, streams, groups);
}

absl::StatusOr<AttentionCalls> AttentionTiles(const AttentionPlan& plan) {
  SEQPAR_RETURN_IF_ERROR(CheckMesh(plan.strategy, plan.tokens.mesh(), plan.heads.heads()));
  const RingAxis axis(plan);
  const TokenShare& own = axis.shares[axis.schedule.rank];
  const PlannedTiles planned = PlanTiles(plan.shape, axis.heads, own, plan.mask, axis.schedule);
  AttentionCalls calls;
  for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
    for (const std::vector<PlannedTile>& slot : planned.Of(pass)) {
      for (const PlannedTile& one : slot) {
        (pass == Pass::kForward ? calls.forward : calls.backward).push_back(one.tile);
      }
    }
  }
  return calls;
}

}  // namespace seqpar
