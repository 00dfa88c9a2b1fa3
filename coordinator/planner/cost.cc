#include "coordinator/planner/cost.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "coordinator/planner/memory.h"

namespace seqpar {
namespace {

// Enqueuing, waking threads and small kernels: what a layer costs beside its flops, measured on a CPU slot.
constexpr double kLayerOverheadSeconds = 2e-4;
// Values that norms, residuals, rotary, copies and the activation read or write, for each token and unit of
// width.
constexpr double kHiddenPasses = 10, kMlpPasses = 6;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

Flow ScaledFlow(const KvFlow& keys, double bytes_per_key) {
  return {static_cast<double>(keys.near_keys) * bytes_per_key,
          static_cast<double>(keys.far_keys) * bytes_per_key, static_cast<double>(keys.near_messages),
          static_cast<double>(keys.far_messages)};
}

double MlpMatrices(MlpKind kind) { return kind == MlpKind::kNone ? 0 : kind == MlpKind::kSwiglu ? 3 : 2; }

}  // namespace

CostModel::CostModel(const JobSpec& job, const Calibration& calibration)
    : job_(job), calibration_(calibration), mask_(job.mask.Make(job.tokens)), flops_(CountModelFlops(job)) {}

const RingCost& CostModel::Ring(const Shape& shape, const Gang* gang) {
  const Mesh& m = shape.mesh;
  std::vector<int> nodes(m.ring, 0);
  for (int r = 1; gang != nullptr && r < m.ring; ++r) {
    const int stride = m.tensor * m.ulysses;
    const bool same = gang->devices[r * stride].node == gang->devices[(r - 1) * stride].node;
    nodes[r] = nodes[r - 1] + (same ? 0 : 1);
  }
  RingKey key{shape.layout, shape.core, m.inner, nodes};
  const auto found = rings_.find(key);
  if (found != rings_.end()) return found->second;
  RingCost cost = MakeRingCost(mask_, shape.layout, shape.core, m.inner, nodes);
  return rings_.emplace(std::move(key), std::move(cost)).first->second;
}

// One all-to-all for q, k and v together, one for the output; backward one for dout, one for dq, dk and dv.
double CostModel::UlyssesBytes(const Mesh& m, const HeadLayout& heads, const RingCost& ring, int u,
                               bool backward) const {
  if (m.ulysses == 1) return 0;
  const int64_t share = ring.tokens[0];
  const double tokens = static_cast<double>(share / m.ulysses + (u < share % m.ulysses ? 1 : 0));
  const HeadRange& mine = heads.Of(0, u);
  double theirs_q = 0, theirs_kv = 0;
  for (int other = 0; other < m.ulysses; ++other) {
    if (other == u) continue;
    theirs_q += heads.Of(0, other).q_heads();
    theirs_kv += 2.0 * heads.Of(0, other).kv_heads();
  }
  const double to_heads = backward ? theirs_q : theirs_q + theirs_kv;
  const double to_tokens = backward ? mine.q_heads() + 2.0 * mine.kv_heads() : mine.q_heads();
  const double elements = tokens * to_heads + (static_cast<double>(share) - tokens) * to_tokens;
  return static_cast<double>(job_.batch * SizeOf(job_.dtype)) * job_.config.head_dim * elements;
}

void CostModel::AddUlysses(const Shape& shape, const HeadLayout& heads, const RingCost& ring, bool backward,
                           const Gang& gang, Cost* cost) const {
  const Mesh& m = shape.mesh;
  if (m.ulysses == 1) return;
  const double bytes = UlyssesBytes(m, heads, ring, 0, backward);
  cost->exposed += SecondsOf(SpreadOver(gang, m, GroupKind::kUlysses, bytes, 2.0 * (m.ulysses - 1)), gang);
}

double CostModel::AttentionBytes(const Mesh& m, const HeadLayout& heads, const RingCost& ring,
                                 Recompute recompute) const {
  const double forwards = job_.backward() && recompute != Recompute::kNone ? 2 : 1;
  const double row = 2.0 * static_cast<double>(job_.batch) * job_.config.head_dim;
  const double e = static_cast<double>(SizeOf(job_.dtype));
  double ring_row = 0;  // bytes along the ring, for each KV head
  for (const RingLoad& load : ring.loads) {
    double bytes = forwards * static_cast<double>(load.forward.keys()) * e;
    if (job_.backward()) {
      bytes += static_cast<double>(load.backward_kv.keys()) * e +
               static_cast<double>(load.backward_grad.keys()) * 4;
    }
    ring_row = std::max(ring_row, row * bytes);
  }
  double most = 0;
  for (int u = 0; u < m.ulysses; ++u) {
    const double trade = forwards * UlyssesBytes(m, heads, ring, u, false) +
                         (job_.backward() ? UlyssesBytes(m, heads, ring, u, true) : 0);
    most = std::max(most, trade + ring_row * heads.Of(0, u).kv_heads());
  }
  return most;
}

void CostModel::AddTensor(const Shape& shape, const RingCost& ring, double collectives, const Gang& gang,
                          Cost* cost) const {
  const Mesh& m = shape.mesh;
  if (m.tensor == 1) return;
  const double rows = static_cast<double>(job_.batch * CeilDiv(ring.tokens[0], m.ulysses));
  const double whole = rows * static_cast<double>(job_.config.hidden_size * SizeOf(job_.dtype));
  const double bytes = collectives * (m.tensor - 1) / m.tensor * whole;
  cost->bytes += bytes;
  const Flow flow = SpreadOver(gang, m, GroupKind::kTensor, bytes, collectives * (m.tensor - 1));
  cost->exposed += SecondsOf(flow, gang);
}

// A ring hides each transfer behind the step that runs meanwhile, a gather behind the rank's own share only.
void CostModel::AddRingForward(const Shape& shape, const HeadRange& heads, const RingCost& ring,
                               double attention_seconds, const Gang& gang, Cost* cost) const {
  const int ranks = shape.mesh.ring;
  if (ranks == 1) return;
  const double key = 2.0 * static_cast<double>(job_.batch * heads.kv_heads() * job_.config.head_dim) *
                     static_cast<double>(SizeOf(job_.dtype));
  double transfer = 0;
  for (const RingLoad& load : ring.loads) {
    transfer = std::max(transfer, SecondsOf(ScaledFlow(load.forward, key), gang));
  }
  const double hiding = shape.core == CoreKind::kGather
                            ? attention_seconds * ring.own_pairs / std::max(1.0, ring.busiest_pairs)
                            : attention_seconds * (ranks - 1) / ranks;
  cost->exposed += std::max(0.0, transfer - hiding);
}

// Gradients follow one slot behind: the last hop home has no work beside it, a gather's only one neither.
void CostModel::AddRingBackward(const Shape& shape, const HeadRange& heads, const RingCost& ring,
                                double attention_seconds, const Gang& gang, Cost* cost) const {
  const int ranks = shape.mesh.ring;
  if (ranks == 1) return;
  const double row = 2.0 * static_cast<double>(job_.batch * heads.kv_heads() * job_.config.head_dim);
  const double e = static_cast<double>(SizeOf(job_.dtype));
  double exposed = 0;
  for (const RingLoad& load : ring.loads) {
    const Flow kv = ScaledFlow(load.backward_kv, row * e), grads = ScaledFlow(load.backward_grad, row * 4);
    const double last = SecondsOf(grads, gang) / (shape.core == CoreKind::kGather ? 1 : ranks);
    const double rest = SecondsOf(kv, gang) + SecondsOf(grads, gang) - last;
    exposed = std::max(exposed, last + std::max(0.0, rest - attention_seconds * (ranks - 1) / ranks));
  }
  cost->exposed += exposed;
}

// Everything that a rank holds of a layer's weights is summed, in float32, over the ranks that hold the same
// with other tokens; norms and the biases of row-parallel products over all ranks.
void CostModel::AddWeightGradients(const Shape& shape, const HeadLayout& heads, const Gang& gang,
                                   Cost* cost) const {
  const Mesh& m = shape.mesh;
  const ModelConfig& c = job_.config;
  const double hidden = static_cast<double>(c.hidden_size);
  const HeadRange& mine = heads.OfTensor(0);
  const double width = static_cast<double>(CeilDiv(c.intermediate_size, m.tensor));
  const double rows = static_cast<double>(mine.q_heads() + 2 * mine.kv_heads()) * c.head_dim;
  double sharded =
      hidden * (rows + static_cast<double>(mine.q_heads()) * c.head_dim + MlpMatrices(c.mlp) * width);
  if (c.qkv_bias) sharded += rows;
  if (c.mlp_bias) sharded += (MlpMatrices(c.mlp) - 1) * width;
  const double norm_vectors = c.norm == NormKind::kNone ? 0 : c.norm == NormKind::kLayerNorm ? 2 : 1;
  double everywhere = hidden * norm_vectors * (c.mlp == MlpKind::kNone ? 1 : 2);
  if (c.attention_out_bias) everywhere += hidden;
  if (c.mlp_bias) everywhere += hidden;
  const auto reduce = [&](double elements, GroupKind kind) {
    const double ranks = GroupSize(m, kind);
    if (ranks <= 1) return;
    const double bytes = 2 * (ranks - 1) / ranks * elements * 4;
    cost->bytes += bytes;
    cost->exposed += SecondsOf(SpreadOver(gang, m, kind, bytes, 2 * (ranks - 1)), gang);
  };
  reduce(sharded, GroupKind::kTensorShard);
  reduce(everywhere, GroupKind::kWorld);
}

CostModel::Work CostModel::ForwardWork(const Shape& shape, const HeadLayout& heads, const RingCost& ring,
                                       const Gang& gang) const {
  const Mesh& m = shape.mesh;
  const ModelConfig& c = job_.config;
  const double hidden = static_cast<double>(c.hidden_size);
  const double batch = static_cast<double>(job_.batch);
  const double rows = batch * static_cast<double>(CeilDiv(ring.tokens[0], m.ulysses));
  const double width = static_cast<double>(CeilDiv(c.intermediate_size, m.tensor));
  const HeadRange& projected = heads.OfTensor(0);
  // A product of few rows takes as long as reading its weights.
  const double column_flops = 2.0 * rows * hidden / gang.rates.gemm_flops;
  const double column_bytes =
      hidden * static_cast<double>(SizeOf(job_.dtype)) / std::max(1.0, gang.rates.copy_bytes);
  const double column = std::max(column_flops, column_bytes);
  Work work;
  work.attention_flops = 4.0 * batch * ring.busiest_pairs * c.head_dim * heads.Of(0, 0).q_heads();
  work.attention = work.attention_flops / gang.rates.attention_forward_flops;
  work.qkv = column * (projected.q_heads() + 2 * projected.kv_heads()) * c.head_dim;
  work.out = column * projected.q_heads() * c.head_dim;
  if (c.mlp != MlpKind::kNone) {
    work.up = column * (MlpMatrices(c.mlp) - 1) * width;
    work.down = column * width;
  }
  const double values = rows * (kHiddenPasses * hidden / m.tensor + kMlpPasses * width);
  work.elementwise = values * static_cast<double>(SizeOf(job_.dtype)) / std::max(1.0, gang.rates.copy_bytes);
  return work;
}

CostModel::Cost CostModel::Forward(const Shape& shape, const HeadLayout& heads, const RingCost& ring,
                                   const Work& work, const Gang& gang) const {
  Cost cost;
  cost.compute = work.attention + work.linear() + work.elementwise + kLayerOverheadSeconds;
  AddUlysses(shape, heads, ring, false, gang, &cost);
  AddTensor(shape, ring, job_.config.mlp == MlpKind::kNone ? 2 : 4, gang, &cost);
  AddRingForward(shape, heads.Of(0, 0), ring, work.attention, gang, &cost);
  return cost;
}

CostModel::Cost CostModel::Backward(const Shape& shape, const HeadLayout& heads, const RingCost& ring,
                                    const Work& work, Recompute recompute, const Gang& gang) const {
  Cost cost;
  const double attention = 2.5 * work.attention_flops / gang.rates.attention_backward_flops;
  cost.compute = attention + 2 * (work.linear() + work.elementwise) + kLayerOverheadSeconds;
  AddUlysses(shape, heads, ring, true, gang, &cost);
  AddTensor(shape, ring, job_.config.mlp == MlpKind::kNone ? 3 : 6, gang, &cost);
  AddRingBackward(shape, heads.Of(0, 0), ring, attention, gang, &cost);
  AddWeightGradients(shape, heads, gang, &cost);
  if (recompute == Recompute::kNone) return cost;
  // What runs again, without the last product of each half that does.
  const bool with_mlp = recompute == Recompute::kLayer && job_.config.mlp != MlpKind::kNone;
  cost.compute += work.attention + work.qkv + (with_mlp ? work.out + work.up + work.elementwise : 0);
  AddUlysses(shape, heads, ring, false, gang, &cost);
  AddTensor(shape, ring, with_mlp ? 3 : 1, gang, &cost);
  AddRingForward(shape, heads.Of(0, 0), ring, work.attention, gang, &cost);
  return cost;
}

Prediction CostModel::Predict(const Shape& shape, Recompute recompute, int64_t peak_bytes, const Gang& gang) {
  const RingCost& ring = Ring(shape, &gang);
  const HeadLayout heads(shape.mesh, job_.config.heads, job_.config.kv_heads);
  const Work work = ForwardWork(shape, heads, ring, gang);
  Prediction p;
  double bytes = 0;
  const auto add = [&](const Cost& layer, PassPrediction* pass) {
    pass->compute_seconds = job_.config.layers * layer.compute * calibration_.compute;
    pass->communication_seconds = job_.config.layers * layer.exposed * calibration_.communication;
    p.compute_seconds += pass->compute_seconds;
    p.communication_seconds += pass->communication_seconds;
    bytes += layer.bytes;
  };
  add(Forward(shape, heads, ring, work, gang), &p.forward);
  if (job_.backward()) add(Backward(shape, heads, ring, work, recompute, gang), &p.backward);
  p.step_seconds = p.compute_seconds + p.communication_seconds;
  bytes += AttentionBytes(shape.mesh, heads, ring, recompute);
  p.bytes_sent = static_cast<int64_t>(job_.config.layers * bytes);
  p.model_flops = flops_.total;
  p.peak_bytes = peak_bytes;
  return p;
}

int64_t CostModel::PeakBytes(const Shape& shape, Recompute recompute, const Gang* gang) {
  const Mesh& m = shape.mesh;
  const RingCost& ring = Ring(shape, gang);
  const HeadLayout heads(m, job_.config.heads, job_.config.kv_heads);
  // Tokens and widths are largest on the first rank of an axis; heads may be more on a later one.
  std::set<std::array<int, 4>> seen;
  int64_t peak = 0;
  for (int t = 0; t < m.tensor; ++t) {
    for (int u = 0; u < m.ulysses; ++u) {
      const HeadRange &outer = heads.OfTensor(t), &inner = heads.Of(t, u);
      if (!seen.insert({outer.q_heads(), outer.kv_heads(), inner.q_heads(), inner.kv_heads()}).second)
        continue;
      for (int ring_rank : ring.fullest) {
        peak = std::max(peak, PeakBytesOf(shape, recompute, {t, u, ring_rank}, heads, ring));
      }
    }
  }
  return peak;
}

int64_t CostModel::PeakBytesOf(const Shape& shape, Recompute recompute, const MeshCoord& coord,
                               const HeadLayout& heads, const RingCost& ring) const {
  const RankMemory memory = PredictRankMemory(job_, shape, recompute, coord, heads, ring);
  return static_cast<int64_t>(calibration_.memory * memory.total());
}

}  // namespace seqpar
