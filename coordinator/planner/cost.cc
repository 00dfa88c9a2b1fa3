#include "coordinator/planner/cost.h"

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "common/attention/strategies.h"
#include "common/base/saturate.h"
#include "coordinator/planner/memory.h"

namespace seqpar {
namespace {

// Where nothing else is known: files are read and written through the page cache, seeded values and float64
// rows are made one by one. Finished jobs correct the phases.
constexpr double kFileBytes = 1e9, kWrittenBytes = 4e8, kSeededValues = 5e7, kFloat64Flops = 1e9;
constexpr double kSyncSeconds = 0.01;
// Of an exchange with several peers at once, each beyond the first takes a part of the latency of one.
constexpr double kFurtherPeer = 0.25;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

Flow ScaledFlow(const KvFlow& keys, double bytes_per_key) {
  return {static_cast<double>(keys.near_keys) * bytes_per_key,
          static_cast<double>(keys.far_keys) * bytes_per_key, static_cast<double>(keys.near_messages),
          static_cast<double>(keys.far_messages)};
}

// Latencies of `exchanges` with `peers` at once each.
double Latencies(double exchanges, double peers) { return exchanges * (1 + kFurtherPeer * (peers - 1)); }

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
  const bool count_calls = gang != nullptr && !gang->rates.attention.empty();
  RingKey key{shape.layout, shape.core, m.inner, nodes, count_calls};
  const auto found = rings_.find(key);
  if (found != rings_.end()) return found->second;
  RingCost cost = MakeRingCost(mask_, shape.layout, shape.core, m.inner, nodes, count_calls);
  return rings_.emplace(std::move(key), std::move(cost)).first->second;
}

// One all-to-all for q, k and v together, one for the output; backward one for dout, one for dq, dk and dv.
double CostModel::UlyssesBytes(const Mesh& m, const HeadLayout& heads, const RingCost& ring, int u,
                               bool backward) const {
  if (m.ulysses == 1) return 0;
  const int64_t share = ring.tokens[0];
  const int64_t own = share / m.ulysses + (u < share % m.ulysses ? 1 : 0);
  const auto tokens = static_cast<double>(own);
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
  cost->exposed +=
      SecondsOf(SpreadOver(gang, m, GroupKind::kUlysses, bytes, Latencies(2, m.ulysses - 1)), gang);
}

double CostModel::AttentionBytes(const Mesh& m, const HeadLayout& heads, const RingCost& ring,
                                 Recompute recompute) const {
  const double forwards = job_.backward() && RecomputesAttention(recompute) ? 2 : 1;
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
  const Flow flow = SpreadOver(gang, m, GroupKind::kTensor, bytes, Latencies(collectives, m.tensor - 1));
  cost->exposed += SecondsOf(flow, gang);
  // Half of the collectives sum what arrives.
  AddSums(collectives / 2 * whole / static_cast<double>(SizeOf(job_.dtype)) * (m.tensor + 1) / m.tensor,
          static_cast<double>(SizeOf(job_.dtype)), gang, cost);
}

// Copies are made by the cores: where none is left over, what is hidden still takes their time.
void CostModel::AddHidden(double transfer, double near_bytes, double hiding, const Gang& gang,
                          Cost* cost) const {
  const double exposed = std::max(0.0, transfer - hiding);
  cost->exposed += exposed;
  if (!gang.copies_compete) return;
  const double copy = near_bytes / std::max(1.0, gang.rates.copy_bytes) * gang.contention;
  cost->copies += std::min(copy, transfer - exposed);
}

void CostModel::AddSums(double values, double bytes_each, const Gang& gang, Cost* cost) const {
  const double rate = gang.rates.pointwise_bytes > 0 ? gang.rates.pointwise_bytes : gang.rates.copy_bytes;
  cost->exposed += values * bytes_each / std::max(1.0, rate) * gang.contention;
}

// A ring hides each transfer behind the step that runs meanwhile, a gather behind the rank's own share only.
void CostModel::AddRingForward(const Shape& shape, const HeadRange& heads, const RingCost& ring,
                               double attention_seconds, const Gang& gang, Cost* cost) const {
  const int ranks = shape.mesh.ring;
  if (ranks == 1) return;
  const double key = 2.0 * static_cast<double>(job_.batch * heads.kv_heads() * job_.config.head_dim) *
                     static_cast<double>(SizeOf(job_.dtype));
  double transfer = 0, near_bytes = 0;
  for (const RingLoad& load : ring.loads) {
    const Flow flow = ScaledFlow(load.forward, key);
    const double seconds = SecondsOf(flow, gang);
    if (seconds < transfer) continue;
    transfer = seconds;
    near_bytes = flow.near_bytes;
  }
  const double hiding = shape.core == CoreKind::kGather
                            ? attention_seconds * ring.own_pairs / std::max(1.0, ring.busiest_pairs)
                            : attention_seconds * (ranks - 1) / ranks;
  AddHidden(transfer, near_bytes, hiding, gang, cost);
}

// Gradients follow one slot behind: the last hop home, which is a gather's only one, has the work on late
// keys beside it.
void CostModel::AddRingBackward(const Shape& shape, const HeadRange& heads, const RingCost& ring,
                                double attention_seconds, const Gang& gang, Cost* cost) const {
  const int ranks = shape.mesh.ring;
  if (ranks == 1) return;
  const double row = 2.0 * static_cast<double>(job_.batch * heads.kv_heads() * job_.config.head_dim);
  const double e = static_cast<double>(SizeOf(job_.dtype));
  Cost slowest;
  for (const RingLoad& load : ring.loads) {
    const Flow kv = ScaledFlow(load.backward_kv, row * e), grads = ScaledFlow(load.backward_grad, row * 4);
    const double last = SecondsOf(grads, gang) / (shape.core == CoreKind::kGather ? 1 : ranks);
    const double rest = SecondsOf(kv, gang) + SecondsOf(grads, gang) - last;
    const double near_last = grads.near_bytes * last / std::max(1e-12, SecondsOf(grads, gang));
    Cost one;
    AddHidden(last, near_last, attention_seconds * ring.late_pairs / std::max(1.0, ring.busiest_pairs), gang,
              &one);
    AddHidden(rest, kv.near_bytes + grads.near_bytes - near_last, attention_seconds * (ranks - 1) / ranks,
              gang, &one);
    AddSums(3 * row * static_cast<double>(load.grad_recv_keys), 4, gang, &one);
    if (one.seconds() > slowest.seconds()) slowest = one;
  }
  cost->exposed += slowest.exposed;
  cost->copies += slowest.copies;
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
    cost->exposed += SecondsOf(SpreadOver(gang, m, kind, bytes, Latencies(2, ranks - 1)), gang);
    AddSums(elements * (ranks + 1) / ranks, 4, gang, cost);
  };
  reduce(sharded, GroupKind::kTensorShard);
  reduce(everywhere, GroupKind::kWorld);
}

CostModel::Shares CostModel::SharesOf(const Shape& shape, const HeadLayout& heads,
                                      const RingCost& ring) const {
  const Mesh& m = shape.mesh;
  const ModelConfig& c = job_.config;
  const double batch = static_cast<double>(job_.batch);
  const HeadRange &projected = heads.OfTensor(0), &attended = heads.Of(0, 0);
  Shares shares;
  RankShare& most = shares.busiest;
  const int64_t group = CeilDiv(ring.tokens[0], m.ulysses);
  most.rows = batch * static_cast<double>(group);
  most.own_rows = batch * static_cast<double>(CeilDiv(group, m.tensor));
  most.share_rows = batch * static_cast<double>(ring.tokens[0]);
  most.width = static_cast<double>(CeilDiv(c.intermediate_size, m.tensor));
  most.q_heads = projected.q_heads();
  most.kv_heads = projected.kv_heads();
  most.attention_heads = attended.q_heads();
  most.attention_kv = attended.kv_heads();
  most.pairs = ring.busiest_pairs;
  most.query_rows = ring.query_rows;
  most.key_rows = ring.key_rows;
  most.edges = ring.edges;
  most.repacked = m.ulysses > 1;
  RankShare& mean = shares.mean;
  mean = most;
  mean.share_rows = batch * static_cast<double>(job_.tokens) / m.ring;
  mean.rows = mean.share_rows / m.ulysses;
  mean.own_rows = mean.rows / m.tensor;
  mean.width = static_cast<double>(c.intermediate_size) / m.tensor;
  mean.q_heads = static_cast<double>(c.heads) / m.tensor;
  mean.attention_heads = mean.q_heads / m.ulysses;
  mean.pairs = ring.mean_pairs;
  return shares;
}

ComputeSeconds CostModel::Compute(const Shares& shares, const Gang& gang,
                                  const std::function<ComputeSeconds(const LayerWork&)>& part) const {
  const ComputeSeconds busiest = part(LayerWork(job_, shares.busiest, gang.rates));
  if (gang.contention <= 1) return busiest;
  const ComputeSeconds shared = gang.contention * part(LayerWork(job_, shares.mean, gang.rates));
  return shared.total() > busiest.total() ? shared : busiest;
}

CostModel::Cost CostModel::Forward(const Shape& shape, const HeadLayout& heads, const RingCost& ring,
                                   const Shares& shares, const Gang& gang) const {
  Cost cost;
  cost.compute = Compute(shares, gang, [](const LayerWork& work) { return work.Forward(); });
  AddUlysses(shape, heads, ring, false, gang, &cost);
  AddTensor(shape, ring, job_.config.mlp == MlpKind::kNone ? 2 : 4, gang, &cost);
  AddRingForward(shape, heads.Of(0, 0), ring, cost.compute.attention, gang, &cost);
  return cost;
}

CostModel::Cost CostModel::Backward(const Shape& shape, const HeadLayout& heads, const RingCost& ring,
                                    const Shares& shares, Recompute recompute, const Gang& gang) const {
  Cost cost;
  cost.compute = Compute(shares, gang, [](const LayerWork& work) { return work.Backward(); });
  AddUlysses(shape, heads, ring, true, gang, &cost);
  AddTensor(shape, ring, job_.config.mlp == MlpKind::kNone ? 3 : 6, gang, &cost);
  AddRingBackward(shape, heads.Of(0, 0), ring, cost.compute.attention, gang, &cost);
  AddWeightGradients(shape, heads, gang, &cost);
  if (recompute == Recompute::kNone) return cost;
  const ComputeSeconds again =
      Compute(shares, gang, [recompute](const LayerWork& work) { return work.Again(recompute); });
  cost.compute += again;
  if (!RecomputesAttention(recompute)) return cost;
  const bool whole = recompute == Recompute::kLayer && job_.config.mlp != MlpKind::kNone;  // its sum too
  AddUlysses(shape, heads, ring, false, gang, &cost);
  AddTensor(shape, ring, whole ? 2 : 1, gang, &cost);
  AddRingForward(shape, heads.Of(0, 0), ring, again.attention, gang, &cost);
  return cost;
}

double CostModel::WeightElements(const Shape& shape, const HeadLayout& heads) const {
  const ModelConfig& c = job_.config;
  const HeadRange& mine = heads.OfTensor(0);
  return static_cast<double>(c.hidden_size) *
         (2.0 * (mine.q_heads() + mine.kv_heads()) * c.head_dim +
          MlpMatrices(c.mlp) * static_cast<double>(CeilDiv(c.intermediate_size, shape.mesh.tensor)));
}

// Phases around the step, on a slot that takes turns with the others.
void CostModel::AddBesideTheStep(const Shape& shape, const HeadLayout& heads, const Gang& gang,
                                 Prediction* p) const {
  const Mesh& m = shape.mesh;
  const ModelConfig& c = job_.config;
  const double hidden = static_cast<double>(c.hidden_size), layers = c.layers;
  const double rows = static_cast<double>(job_.batch * job_.tokens),
               e = static_cast<double>(SizeOf(job_.dtype));
  const double weights = layers * WeightElements(shape, heads);
  const double own = rows / m.size() * hidden;
  const double values_a_second = gang.rates.seeded_values > 0 ? gang.rates.seeded_values : kSeededValues;
  const auto load = [&](const Source& source, double values) {
    return source.file.empty() ? values / values_a_second : values * e / kFileBytes;
  };
  double shard = load(job_.weights, weights) + load(job_.input, own);
  if (job_.backward()) shard += load(job_.grad_output, own);
  const double written = job_.output_file.empty() ? 0 : own * e * (job_.backward() ? 2 : 1);
  const double attended = 4.0 * rows * c.heads * c.head_dim / m.size();
  const double verified =
      job_.verify_rows * layers * (2 * weights / layers + attended) * (job_.backward() ? 3 : 1);
  const auto corrected = [&](const char* phase, double seconds) {
    return seconds * calibration_.Factor(PhaseKey(phase, gang.node_kind));
  };
  p->bootstrap_seconds = corrected("bootstrap", gang.start_seconds);
  p->shard_seconds = corrected("shard", shard * gang.contention);
  p->verify_seconds = corrected("verify", verified / kFloat64Flops * gang.contention);
  p->merge_seconds = corrected("merge", written / kWrittenBytes + (written > 0 ? kSyncSeconds : 0));
}

double CostModel::FirstTouchSeconds(const Shape& shape, const HeadLayout& heads, int64_t peak_bytes,
                                    const Gang& gang) const {
  if (gang.rates.touch_bytes <= 0) return 0;
  const double rows = static_cast<double>(job_.batch * job_.tokens) / shape.mesh.size();
  const double loaded = job_.config.layers * WeightElements(shape, heads) +
                        (job_.backward() ? 2 : 1) * rows * static_cast<double>(job_.config.hidden_size);
  const double fresh = static_cast<double>(peak_bytes) - loaded * static_cast<double>(SizeOf(job_.dtype));
  return std::max(0.0, fresh) / gang.rates.touch_bytes * gang.contention;
}

Prediction CostModel::Predict(const Shape& shape, Recompute recompute, int64_t peak_bytes, const Gang& gang) {
  const RingCost& ring = Ring(shape, &gang);
  const HeadLayout heads(shape.mesh, job_.config.heads, job_.config.kv_heads);
  const Shares shares = SharesOf(shape, heads, ring);
  Prediction p;
  p.correction = calibration_.StepFactor(gang.node_kind, job_.pass, StrategyOfMesh(shape.mesh, shape.core));
  const double factor = job_.config.layers * p.correction;
  double bytes = AttentionBytes(shape.mesh, heads, ring, recompute);
  const auto add = [&](const Cost& layer, PassPrediction* pass) {
    p.attention_seconds += factor * layer.compute.attention;
    p.product_seconds += factor * layer.compute.products;
    p.pointwise_seconds += factor * layer.compute.pointwise;
    pass->compute_seconds += factor * (layer.compute.total() + layer.copies);
    pass->communication_seconds += factor * layer.exposed;
    bytes += layer.bytes;
  };
  add(Forward(shape, heads, ring, shares, gang), &p.forward);
  if (job_.backward()) add(Backward(shape, heads, ring, shares, recompute, gang), &p.backward);
  // Buffers are new to a job: what the shard phase has not filled is written for the first time in the step,
  // about half of it in each pass.
  const double touching = p.correction * FirstTouchSeconds(shape, heads, peak_bytes, gang);
  p.pointwise_seconds += touching;
  p.forward.compute_seconds += touching / 2;
  (job_.backward() ? p.backward : p.forward).compute_seconds += touching / 2;
  p.compute_seconds = p.forward.compute_seconds + p.backward.compute_seconds;
  p.communication_seconds = p.forward.communication_seconds + p.backward.communication_seconds;
  p.step_seconds = p.compute_seconds + p.communication_seconds;
  p.bytes_sent = WholeOf(job_.config.layers * bytes);
  p.model_flops = flops_.total;
  p.peak_bytes = peak_bytes;
  AddBesideTheStep(shape, heads, gang, &p);
  return p;
}

int64_t CostModel::PeakBytes(const Shape& shape, Recompute recompute, const std::string& device_kind,
                             const Gang* gang) {
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
        peak = std::max(peak, PeakBytesOf(shape, recompute, device_kind, {t, u, ring_rank}, heads, ring));
      }
    }
  }
  return peak;
}

int64_t CostModel::PeakBytesOf(const Shape& shape, Recompute recompute, const std::string& device_kind,
                               const MeshCoord& coord, const HeadLayout& heads, const RingCost& ring) const {
  const RankMemory memory = PredictRankMemory(job_, shape, recompute, coord, heads, ring, device_kind);
  return WholeOf(memory.total());
}

}  // namespace seqpar
