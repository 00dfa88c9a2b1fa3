#include "coordinator/planner/memory.h"

#include "common/parallel/head_layout.h"

namespace seqpar {
namespace {

int64_t Part(int64_t whole, int parts, int index) { return whole / parts + (index < whole % parts ? 1 : 0); }

}  // namespace

double PredictRankBytes(const JobSpec& job, const Shape& shape, Recompute recompute, const MeshCoord& at,
                        const RingCost& ring) {
  const Mesh& m = shape.mesh;
  const ModelConfig& c = job.config;
  const double e = static_cast<double>(SizeOf(job.dtype));
  const double b = static_cast<double>(job.batch);
  const HeadLayout heads(m, c.heads, c.kv_heads);
  const HeadRange& projected = heads.OfTensor(at.tensor);
  const HeadRange& attended = heads.Of(at.tensor, at.ulysses);
  const int64_t group_tokens = Part(ring.tokens[at.ring], m.ulysses, at.ulysses);
  const double own = b * static_cast<double>(Part(group_tokens, m.tensor, at.tensor));
  const double group = b * static_cast<double>(group_tokens);
  const double share = b * static_cast<double>(ring.tokens[at.ring]);
  const double d = static_cast<double>(c.hidden_size), dh = c.head_dim;
  const double q = projected.q_heads() * dh, kv = 2.0 * projected.kv_heads() * dh;
  const double inner_q = attended.q_heads() * dh, inner_kv = 2.0 * attended.kv_heads() * dh;
  const bool has_mlp = c.mlp != MlpKind::kNone;
  const double f = has_mlp ? static_cast<double>(Part(c.intermediate_size, m.tensor, at.tensor)) : 0;
  const double matrices = c.mlp == MlpKind::kSwiglu ? 3 : 2;

  const double weights = d * (2 * q + kv) + (has_mlp ? matrices * d * f : 0) + 4 * d;
  double bytes = c.layers * weights * (e + (job.backward() ? 4 : 0));

  // One layer's working set, forward.
  const double gathered = m.tensor > 1 ? 2 * group * d * e : 0;
  const double attention_io = group * (2 * q + kv) * e;
  const double traded =
      m.ulysses > 1 ? (2 * share * inner_q + share * inner_kv) * e + group * (q + kv) * e : 0;
  const double partial = share * (inner_q + attended.q_heads()) * 4;
  const double travelling = b * static_cast<double>(ring.LoadOf(at.ring).buffer_keys) * inner_kv * e;
  const double mlp = has_mlp ? matrices * group * f * e : 0;
  const double working = gathered + attention_io + traded + partial + travelling + mlp + own * d * e;
  bytes += 3 * own * d * e;  // hidden_states in, out and between
  if (!job.backward()) return bytes + working;

  const double gradients =
      attention_io + traded + share * (inner_q + inner_kv) * 4 +
      b * static_cast<double>((ring.LoadOf(at.ring).grad_keys + ring.LoadOf(at.ring).grad_recv_keys)) *
          inner_kv * 4 +
      mlp;
  const double kept_attention = attention_io + traded + share * attended.q_heads() * 4;
  const double kept_rest = 2 * own * d * e + mlp;
  const double kept = recompute == Recompute::kLayer       ? own * d * e
                      : recompute == Recompute::kAttention ? own * d * e + kept_rest
                                                           : own * d * e + kept_rest + kept_attention;
  return bytes + c.layers * kept + working + gradients;
}

}  // namespace seqpar
