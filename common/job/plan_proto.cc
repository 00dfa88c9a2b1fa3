#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/job/known_values.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

// A plan arrives from another process: anything larger than this is not a plan that we made.
constexpr int64_t kTokensMax = int64_t{1} << 33;
constexpr int64_t kRanksMax = 1 << 20;

absl::Status BadPlan(const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kInvalidArgument,
                   absl::StrCat("plan: ", what));
}

void HeadsToProto(const HeadRange& heads, v1::HeadRange* proto) {
  proto->set_q_begin(heads.q_begin);
  proto->set_q_end(heads.q_end);
  proto->set_kv_begin(heads.kv_begin);
  proto->set_kv_end(heads.kv_end);
}

HeadRange HeadsFromProto(const v1::HeadRange& proto) {
  return {proto.q_begin(), proto.q_end(), proto.kv_begin(), proto.kv_end()};
}

bool IsSane(const HeadRange& h) {
  return 0 <= h.q_begin && h.q_begin <= h.q_end && 0 <= h.kv_begin && h.kv_begin <= h.kv_end;
}

void RankToProto(const RankPlan& rank, v1::RankPlan* proto) {
  proto->set_rank(rank.rank);
  for (const Segment& segment : rank.tokens.segments()) {
    v1::Segment* out = proto->add_segments();
    out->set_begin(segment.begin);
    out->set_end(segment.end);
    out->set_stride(segment.stride);
  }
  HeadsToProto(rank.heads, proto->mutable_heads());
  HeadsToProto(rank.tensor_heads, proto->mutable_tensor_heads());
  proto->mutable_tensor_group()->Add(rank.tensor_group.begin(), rank.tensor_group.end());
  proto->mutable_ulysses_group()->Add(rank.ulysses_group.begin(), rank.ulysses_group.end());
  proto->mutable_ring_group()->Add(rank.ring_group.begin(), rank.ring_group.end());
  proto->set_ring_next(rank.ring_next);
  proto->set_ring_previous(rank.ring_previous);
  proto->set_predicted_peak_bytes(rank.predicted_peak_bytes);
  proto->set_attended_pairs(rank.attended_pairs);
  proto->set_node(rank.node);
  proto->set_device(rank.device);
}

// The groups and neighbours that the message names must be those of the mesh.
absl::Status CheckGroups(const Mesh& mesh, const RankPlan& rank) {
  if (rank.tensor_group != mesh.TensorGroup(rank.rank) ||
      rank.ulysses_group != mesh.UlyssesGroup(rank.rank) || rank.ring_group != mesh.RingGroup(rank.rank)) {
    return BadPlan(
        absl::StrCat("the groups of rank ", rank.rank, " are not those of mesh ", mesh.ToString()));
  }
  const int position = mesh.CoordOf(rank.rank).ring;
  if (rank.ring_next != rank.ring_group[(position + 1) % mesh.ring] ||
      rank.ring_previous != rank.ring_group[(position + mesh.ring - 1) % mesh.ring]) {
    return BadPlan(
        absl::StrCat("the ring neighbours of rank ", rank.rank, " are not those of mesh ", mesh.ToString()));
  }
  return absl::OkStatus();
}

absl::StatusOr<RankPlan> RankFromProto(const v1::RankPlan& proto, int index) {
  RankPlan rank;
  rank.rank = proto.rank();
  if (rank.rank != index) return BadPlan(absl::StrCat("rank ", rank.rank, " stands at place ", index));
  std::vector<Segment> segments;
  for (const v1::Segment& s : proto.segments()) {
    if (s.end() > kTokensMax) return BadPlan(absl::StrCat("a segment of rank ", index, " ends at ", s.end()));
    segments.push_back({s.begin(), s.end(), s.stride()});
  }
  if (!TokenShare::Ascends(segments)) {
    return BadPlan(absl::StrCat("the tokens of rank ", index, " do not ascend"));
  }
  rank.tokens = TokenShare(segments);
  rank.heads = HeadsFromProto(proto.heads());
  rank.tensor_heads = HeadsFromProto(proto.tensor_heads());
  if (!IsSane(rank.heads) || !IsSane(rank.tensor_heads) || rank.heads.q_begin < rank.tensor_heads.q_begin ||
      rank.heads.q_end > rank.tensor_heads.q_end) {
    return BadPlan(
        absl::StrCat("the attention heads of rank ", index, " are not among its projections' heads"));
  }
  rank.tensor_group.assign(proto.tensor_group().begin(), proto.tensor_group().end());
  rank.ulysses_group.assign(proto.ulysses_group().begin(), proto.ulysses_group().end());
  rank.ring_group.assign(proto.ring_group().begin(), proto.ring_group().end());
  rank.ring_next = proto.ring_next();
  rank.ring_previous = proto.ring_previous();
  rank.predicted_peak_bytes = proto.predicted_peak_bytes();
  rank.attended_pairs = proto.attended_pairs();
  rank.node = proto.node();
  rank.device = proto.device();
  return rank;
}

// Every position of [0, N) exactly once, where N is the number of tokens of all shares; and the shares of one
// ring rank put together ascend, which TokenLayout relies on.
absl::Status CheckShares(const Plan& plan) {
  int64_t tokens = 0;
  std::vector<Segment> all;
  const int group = plan.mesh.tensor * plan.mesh.ulysses;
  for (int ring = 0; ring < plan.mesh.ring; ++ring) {
    std::vector<Segment> joined;
    for (int i = ring * group; i < (ring + 1) * group; ++i) {
      const TokenShare& share = plan.ranks[i].tokens;
      tokens += share.size();
      joined.insert(joined.end(), share.segments().begin(), share.segments().end());
    }
    if (!TokenShare::Ascends(joined)) {
      return BadPlan(absl::StrCat("the tokens of the ranks of ring position ", ring, " do not ascend"));
    }
    all.insert(all.end(), joined.begin(), joined.end());
  }
  if (tokens > kTokensMax) return BadPlan(absl::StrCat("its shares have ", tokens, " tokens"));
  const std::string why = WhyNotExactlyOnce(std::move(all));
  if (why.empty()) return absl::OkStatus();
  return BadPlan(absl::StrCat("its shares do not cover [0, ", tokens, ") exactly once: ", why));
}

void PassToProto(const PassPrediction& pass, v1::PassPrediction* proto) {
  proto->set_compute_seconds(pass.compute_seconds);
  proto->set_communication_seconds(pass.communication_seconds);
}

void PredictionToProto(const Prediction& prediction, v1::Prediction* proto) {
  proto->set_step_seconds(prediction.step_seconds);
  proto->set_compute_seconds(prediction.compute_seconds);
  proto->set_communication_seconds(prediction.communication_seconds);
  proto->set_peak_bytes(prediction.peak_bytes);
  proto->set_bytes_sent(prediction.bytes_sent);
  proto->set_model_flops(prediction.model_flops);
  PassToProto(prediction.forward, proto->mutable_forward());
  PassToProto(prediction.backward, proto->mutable_backward());
  proto->set_attention_seconds(prediction.attention_seconds);
  proto->set_product_seconds(prediction.product_seconds);
  proto->set_pointwise_seconds(prediction.pointwise_seconds);
  proto->set_bootstrap_seconds(prediction.bootstrap_seconds);
  proto->set_shard_seconds(prediction.shard_seconds);
  proto->set_verify_seconds(prediction.verify_seconds);
  proto->set_merge_seconds(prediction.merge_seconds);
  proto->set_correction(prediction.correction);
}

Prediction PredictionFromProto(const v1::Prediction& proto) {
  Prediction prediction;
  prediction.step_seconds = proto.step_seconds();
  prediction.compute_seconds = proto.compute_seconds();
  prediction.communication_seconds = proto.communication_seconds();
  prediction.peak_bytes = proto.peak_bytes();
  prediction.bytes_sent = proto.bytes_sent();
  prediction.model_flops = proto.model_flops();
  prediction.forward = {proto.forward().compute_seconds(), proto.forward().communication_seconds()};
  prediction.backward = {proto.backward().compute_seconds(), proto.backward().communication_seconds()};
  prediction.attention_seconds = proto.attention_seconds();
  prediction.product_seconds = proto.product_seconds();
  prediction.pointwise_seconds = proto.pointwise_seconds();
  prediction.bootstrap_seconds = proto.bootstrap_seconds();
  prediction.shard_seconds = proto.shard_seconds();
  prediction.verify_seconds = proto.verify_seconds();
  prediction.merge_seconds = proto.merge_seconds();
  prediction.correction = proto.correction() > 0 ? proto.correction() : 1;
  return prediction;
}

void CandidateToProto(const Candidate& candidate, v1::Candidate* proto) {
  *proto->mutable_mesh() = MeshToProto(candidate.mesh);
  proto->set_strategy(StrategyToProto(candidate.strategy));
  proto->set_core(CoreToProto(candidate.core));
  proto->set_layout(LayoutToProto(candidate.layout));
  proto->set_recompute(RecomputeToProto(candidate.recompute));
  proto->set_feasible(candidate.feasible);
  PredictionToProto(candidate.prediction, proto->mutable_prediction());
  proto->set_reason(candidate.reason);
}

void RejectionToProto(const Rejection& rejection, v1::Explanation::Rejected* proto) {
  proto->set_reason(rejection.reason);
  proto->set_count(rejection.count);
  CandidateToProto(rejection.nearest, proto->mutable_nearest());
}

}  // namespace

v1::Strategy StrategyToProto(StrategyKind kind) {
  switch (kind) {
    case StrategyKind::kAuto:
      return v1::STRATEGY_AUTO;
    case StrategyKind::kMegatronSp:
      return v1::STRATEGY_MEGATRON_SP;
    case StrategyKind::kUlysses:
      return v1::STRATEGY_ULYSSES;
    case StrategyKind::kRing:
      return v1::STRATEGY_RING;
    case StrategyKind::kGather:
      return v1::STRATEGY_GATHER;
    case StrategyKind::kHybrid:
      return v1::STRATEGY_HYBRID;
  }
  return v1::STRATEGY_UNSPECIFIED;
}

StrategyKind StrategyFromProto(v1::Strategy strategy) {
  switch (strategy) {
    case v1::STRATEGY_MEGATRON_SP:
      return StrategyKind::kMegatronSp;
    case v1::STRATEGY_ULYSSES:
      return StrategyKind::kUlysses;
    case v1::STRATEGY_RING:
      return StrategyKind::kRing;
    case v1::STRATEGY_GATHER:
      return StrategyKind::kGather;
    case v1::STRATEGY_HYBRID:
      return StrategyKind::kHybrid;
    default:
      return StrategyKind::kAuto;
  }
}

v1::Core CoreToProto(CoreKind kind) { return kind == CoreKind::kGather ? v1::CORE_GATHER : v1::CORE_RING; }

CoreKind CoreFromProto(v1::Core core) {
  return core == v1::CORE_GATHER ? CoreKind::kGather : CoreKind::kRing;
}

v1::Layout LayoutToProto(LayoutKind kind) {
  switch (kind) {
    case LayoutKind::kContiguous:
      return v1::LAYOUT_CONTIGUOUS;
    case LayoutKind::kZigzag:
      return v1::LAYOUT_ZIGZAG;
    case LayoutKind::kStriped:
      return v1::LAYOUT_STRIPED;
  }
  return v1::LAYOUT_UNSPECIFIED;
}

LayoutKind LayoutFromProto(v1::Layout layout) {
  return layout == v1::LAYOUT_ZIGZAG    ? LayoutKind::kZigzag
         : layout == v1::LAYOUT_STRIPED ? LayoutKind::kStriped
                                        : LayoutKind::kContiguous;
}

v1::Recompute RecomputeToProto(Recompute recompute) {
  switch (recompute) {
    case Recompute::kNone:
      return v1::RECOMPUTE_NONE;
    case Recompute::kMlp:
      return v1::RECOMPUTE_MLP;
    case Recompute::kAttention:
      return v1::RECOMPUTE_ATTENTION;
    case Recompute::kLayer:
      return v1::RECOMPUTE_LAYER;
  }
  return v1::RECOMPUTE_UNSPECIFIED;
}

Recompute RecomputeFromProto(v1::Recompute recompute) {
  return recompute == v1::RECOMPUTE_MLP         ? Recompute::kMlp
         : recompute == v1::RECOMPUTE_ATTENTION ? Recompute::kAttention
         : recompute == v1::RECOMPUTE_LAYER     ? Recompute::kLayer
                                                : Recompute::kNone;
}

v1::Mesh MeshToProto(const Mesh& mesh) {
  v1::Mesh proto;
  proto.set_tensor(mesh.tensor);
  proto.set_ulysses(mesh.ulysses);
  proto.set_ring(mesh.ring);
  proto.set_inner(mesh.inner);
  return proto;
}

Mesh MeshFromProto(const v1::Mesh& proto) {
  Mesh mesh;
  mesh.tensor = proto.tensor();
  mesh.ulysses = proto.ulysses();
  mesh.ring = proto.ring();
  mesh.inner = proto.inner();
  return mesh;
}

v1::Plan PlanToProto(const Plan& plan) {
  v1::Plan proto;
  *proto.mutable_mesh() = MeshToProto(plan.mesh);
  proto.set_strategy(StrategyToProto(plan.strategy));
  proto.set_core(CoreToProto(plan.core));
  proto.set_layout(LayoutToProto(plan.layout));
  proto.set_recompute(RecomputeToProto(plan.recompute));
  for (const RankPlan& rank : plan.ranks) RankToProto(rank, proto.add_ranks());
  PredictionToProto(plan.prediction, proto.mutable_prediction());
  proto.set_reason(plan.reason);
  proto.set_node_kind(plan.node_kind);
  return proto;
}

absl::StatusOr<Plan> PlanFromProto(const v1::Plan& proto) {
  SEQPAR_RETURN_IF_ERROR(CheckKnownValues("plan", proto));
  Plan plan;
  plan.mesh = MeshFromProto(proto.mesh());
  const Mesh& mesh = plan.mesh;
  for (const int degree : {mesh.tensor, mesh.ulysses, mesh.ring, mesh.inner}) {
    if (degree < 1 || degree > kRanksMax) return BadPlan(absl::StrCat("a degree of its mesh is ", degree));
  }
  if (mesh.ring % mesh.inner != 0) {
    return BadPlan(absl::StrCat("inner ", mesh.inner, " does not divide ring ", mesh.ring));
  }
  // In 64 bits, one product at a time: the degrees are bounded above, their product is not.
  const int64_t tensor_ulysses = int64_t{mesh.tensor} * mesh.ulysses;
  if (tensor_ulysses > kRanksMax || tensor_ulysses * mesh.ring != proto.ranks_size()) {
    return BadPlan(
        absl::StrCat("it has ", proto.ranks_size(), " ranks, its mesh ", mesh.ToString(), " another number"));
  }
  plan.strategy = StrategyFromProto(proto.strategy());
  plan.core = CoreFromProto(proto.core());
  plan.layout = LayoutFromProto(proto.layout());
  plan.recompute = RecomputeFromProto(proto.recompute());
  for (int i = 0; i < proto.ranks_size(); ++i) {
    SEQPAR_ASSIGN_OR_RETURN(RankPlan rank, RankFromProto(proto.ranks(i), i));
    SEQPAR_RETURN_IF_ERROR(CheckGroups(mesh, rank));
    plan.ranks.push_back(std::move(rank));
  }
  SEQPAR_RETURN_IF_ERROR(CheckShares(plan));
  plan.prediction = PredictionFromProto(proto.prediction());
  plan.reason = proto.reason();
  plan.node_kind = proto.node_kind();
  return plan;
}

v1::Explanation ExplanationToProto(const Explanation& explanation) {
  v1::Explanation proto;
  for (const Candidate& candidate : explanation.best) CandidateToProto(candidate, proto.add_best());
  proto.set_feasible(explanation.feasible);
  proto.set_considered(explanation.considered);
  for (const Rejection& rejection : explanation.rejected) {
    RejectionToProto(rejection, proto.add_rejected());
  }
  if (explanation.slower.count > 0) RejectionToProto(explanation.slower, proto.mutable_slower());
  for (const Candidate& candidate : explanation.all) CandidateToProto(candidate, proto.add_all());
  return proto;
}

}  // namespace seqpar
