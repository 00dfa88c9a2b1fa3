#include "coordinator/planner/cost.h"

#include <algorithm>
#include <cmath>

#include "common/job/tensors.h"
#include "common/parallel/head_layout.h"
#include "common/parallel/kv_schedule.h"
#include "coordinator/planner/memory.h"

namespace seqpar {
namespace {

// Enqueuing, waking threads and small kernels: what a layer costs beside its flops, measured on a CPU slot.
constexpr double kLayerOverheadSeconds = 2e-4;

// Ring ranks whose schedules are looked at: all, or where there are many the ends and the middle, which hold the
// extremes of every layout.
std::vector<int> SampledRanks(int ring) {
  if (ring <= 32) {
    std::vector<int> all(ring);
    for (int r = 0; r < ring; ++r) all[r] = r;
    return all;
  }
  return {0, ring / 2 - 1, ring / 2, ring - 1};
}

double Seconds(const LinkRates& link, double bytes, double messages) {
  return bytes / std::max(1.0, link.bandwidth) + messages * link.latency;
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

CostModel::CostModel(const JobSpec& job, const Calibration& calibration)
    : job_(job), calibration_(calibration), mask_(job.mask.Make(job.tokens)), flops_(CountModelFlops(job)) {
  for (const WeightInfo& weight : LayerWeights(job_.config, 0)) {
    double elements = 1;
    for (int64_t extent : weight.shape) elements *= static_cast<double>(extent);
    weight_elements_ += elements;
  }
}

const RingCost& CostModel::Ring(const Shape& shape) {
  const int ring = shape.mesh.ring;
  auto [it, fresh] = rings_.try_emplace({shape.layout, ring, shape.mesh.inner, shape.core});
  RingCost& cost = it->second;
  if (!fresh) return cost;
  const std::vector<TokenShare> shares = RingShares(shape.layout, job_.tokens, ring);
  const TokenShare all({{0, job_.tokens, 1}});
  for (const TokenShare& share : shares) {
    cost.tokens.push_back(share.size());
    cost.pairs.push_back(ring == 1 ? mask_.Pairs() : AttendedPairs(mask_, share, all));
  }
  const int busiest = static_cast<int>(std::max_element(cost.pairs.begin(), cost.pairs.end()) - cost.pairs.begin());
  cost.own_pairs = ring == 1 ? cost.pairs[0] : AttendedPairs(mask_, shares[busiest], shares[busiest]);
  if (ring == 1) return cost;
  for (int rank : SampledRanks(ring)) {
    const KvSchedule schedule = shape.core == CoreKind::kGather ? GatherSchedule(shares, mask_, rank)
                                                                : RingSchedule(shares, mask_, rank, shape.mesh.inner);
    const KvVolume volume = VolumeOf(schedule);
    cost.forward_keys = std::max(cost.forward_keys, volume.forward_keys);
    cost.backward_kv_keys = std::max(cost.backward_kv_keys, volume.backward_kv_keys);
    cost.backward_grad_keys = std::max(cost.backward_grad_keys, volume.backward_grad_keys);
    cost.forward_messages = std::max(cost.forward_messages, volume.forward_messages);
    cost.backward_messages =
        std::max(cost.backward_messages, volume.backward_kv_messages + volume.backward_grad_messages);
    cost.buffer_keys = std::max(cost.buffer_keys, schedule.buffer_keys);
    cost.grad_keys = std::max(cost.grad_keys, schedule.grad_keys + schedule.grad_recv_keys);
  }
  return cost;
}

CostModel::Times CostModel::AttentionCommunication(const Shape& shape, const Gang& gang, double attention_seconds,
                                                   bool backward) {
  Times times;
  const Mesh& m = shape.mesh;
  const ModelConfig& c = job_.config;
  const double e = static_cast<double>(SizeOf(job_.dtype));
  const HeadLayout heads(m, c.heads, c.kv_heads);
  const RingCost& ring = Ring(shape);
  const HeadRange& mine = heads.Of(0, 0);
  if (m.ulysses > 1) {
    double columns = 0;  // of q, k, v and the output, for the others
    for (int u = 1; u < m.ulysses; ++u) {
      const HeadRange& theirs = heads.Of(0, u);
      columns += theirs.q_heads() + 2.0 * theirs.kv_heads();
    }
    const double tokens = static_cast<double>(CeilDiv(ring.tokens[0], m.ulysses));
    const double bytes =
        job_.batch * e * c.head_dim * (tokens * columns + tokens * (m.ulysses - 1) * mine.q_heads());
    times.bytes += bytes;
    times.exposed += Seconds(LinkOf(gang, m.UlyssesGroup(0)), bytes, 2.0 * (m.ulysses - 1));
  }
  if (m.ring > 1) {
    const double row = 2.0 * job_.batch * mine.kv_heads() * c.head_dim;
    const double bytes = backward ? row * (ring.backward_kv_keys * e + ring.backward_grad_keys * 4.0)
                                  : row * ring.forward_keys * e;
    times.bytes += bytes;
    const double messages = static_cast<double>(backward ? ring.backward_messages : ring.forward_messages);
    const double transfer = Seconds(LinkOf(gang, m.RingGroup(0)), bytes, messages);
    // A ring hides each transfer behind the step that runs meanwhile; a gather behind the own share only.
    const double busiest = *std::max_element(ring.pairs.begin(), ring.pairs.end());
    const double hiding = shape.core == CoreKind::kGather ? attention_seconds * ring.own_pairs / std::max(1.0, busiest)
                                                          : attention_seconds * (m.ring - 1) / m.ring;
    times.exposed += std::max(0.0, transfer - hiding);
  }
  return times;
}

CostModel::Times CostModel::TensorCommunication(const Shape& shape, const Gang& gang, bool backward) {
  Times times;
  const Mesh& m = shape.mesh;
  if (m.tensor == 1) return times;
  const double rows = static_cast<double>(CeilDiv(Ring(shape).tokens[0], m.ulysses));
  const double blocks = job_.config.mlp == MlpKind::kNone ? 1 : 2;
  const double collectives = blocks * (backward ? 3 : 2);
  times.bytes = collectives * (m.tensor - 1) / m.tensor * job_.batch * rows *
                static_cast<double>(job_.config.hidden_size * SizeOf(job_.dtype));
  times.exposed = Seconds(LinkOf(gang, m.TensorGroup(0)), times.bytes, collectives * (m.tensor - 1));
  return times;
}

CostModel::Times CostModel::WeightGradients(const Shape& shape, const Gang& gang) {
  Times times;
  const Mesh& m = shape.mesh;
  const double copies = static_cast<double>(m.ulysses) * m.ring;
  if (copies == 1) return times;
  times.bytes = 2.0 * (copies - 1) / copies * weight_elements_ / m.tensor * 4.0;
  std::vector<int> group;
  for (int rank = 0; rank < m.size(); rank += m.tensor) group.push_back(rank);
  times.exposed = Seconds(LinkOf(gang, group), times.bytes, 2.0 * (copies - 1));
  return times;
}

Prediction CostModel::Predict(const Shape& shape, Recompute recompute, const Gang& gang) {
  const Mesh& m = shape.mesh;
  const ModelConfig& c = job_.config;
  const RingCost& ring = Ring(shape);
  const HeadLayout heads(m, c.heads, c.kv_heads);
  const double head_share = static_cast<double>(heads.Of(0, 0).q_heads()) / c.heads;
  const double busiest = *std::max_element(ring.pairs.begin(), ring.pairs.end());
  const double attention_flops = 4.0 * job_.batch * busiest * c.head_dim * c.heads * head_share;
  const double rows = static_cast<double>(CeilDiv(ring.tokens[0], m.ulysses));
  const double linear_flops = flops_.linear_forward / c.layers * rows / job_.tokens *
                              (static_cast<double>(heads.OfTensor(0).q_heads()) / c.heads);
  // Norms, activation, rotary and residuals pass over memory; about so many values a token.
  const double values = 10.0 * c.hidden_size / m.tensor + 6.0 * c.intermediate_size / m.tensor;
  const double elementwise = job_.batch * rows * values * SizeOf(job_.dtype) / std::max(1.0, gang.rates.copy_bytes);

  const double attention = attention_flops / gang.rates.attention_forward_flops;
  const double linear = linear_flops / gang.rates.gemm_flops;
  double compute = attention + linear + elementwise + kLayerOverheadSeconds;
  Times a = AttentionCommunication(shape, gang, attention, false);
  Times t = TensorCommunication(shape, gang, false);
  double exposed = a.exposed + t.exposed, bytes = a.bytes + t.bytes;
  if (job_.backward()) {
    const double attention_back = 2.5 * attention_flops / gang.rates.attention_backward_flops;
    a = AttentionCommunication(shape, gang, attention_back, true);
    t = TensorCommunication(shape, gang, true);
    const Times w = WeightGradients(shape, gang);
    compute += attention_back + 2.0 * linear + 2.0 * elementwise + kLayerOverheadSeconds;
    if (recompute != Recompute::kNone) compute += attention + (recompute == Recompute::kLayer ? linear + elementwise : 0);
    exposed += a.exposed + t.exposed + w.exposed;
    bytes += a.bytes + t.bytes + w.bytes;
  }
  Prediction p;
  p.compute_seconds = c.layers * compute * calibration_.compute;
  p.communication_seconds = c.layers * exposed * calibration_.communication;
  p.step_seconds = p.compute_seconds + p.communication_seconds;
  p.bytes_sent = static_cast<int64_t>(c.layers * bytes);
  p.model_flops = flops_.total;
  p.peak_bytes = PeakBytes(shape, recompute);
  return p;
}

int64_t CostModel::PeakBytes(const Shape& shape, Recompute recompute) {
  // The first rank of every axis holds the larger parts; the last ring rank may attend more.
  return std::max(PeakBytesOf(shape, recompute, {0, 0, 0}), PeakBytesOf(shape, recompute, {0, 0, shape.mesh.ring - 1}));
}

int64_t CostModel::PeakBytesOf(const Shape& shape, Recompute recompute, const MeshCoord& coord) {
  return static_cast<int64_t>(calibration_.memory * PredictRankBytes(job_, shape, recompute, coord, Ring(shape)));
}

}  // namespace seqpar
