#include "worker/executor/verify.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/tensor/seeded.h"

namespace seqpar {
namespace {

// Distinct positions, the last one among them (its shard is the one that odd lengths break), the rest drawn
// from the key.
std::vector<int64_t> SamplePositions(const std::string& key, int64_t tokens, int rows) {
  std::set<int64_t> chosen = {tokens - 1};
  const uint64_t seed = Fnv1a64(key);
  const int64_t wanted = std::min<int64_t>(rows, tokens);
  for (int64_t i = 0; static_cast<int64_t>(chosen.size()) < wanted; ++i) {
    const uint32_t counter[4] = {static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), 0, 0};
    const uint32_t words[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
    uint32_t out[4];
    Philox4x32(counter, words, out);
    chosen.insert(static_cast<int64_t>(((static_cast<uint64_t>(out[1]) << 32) | out[0]) % tokens));
  }
  return {chosen.begin(), chosen.end()};
}

double Dot(const double* a, const double* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

Verifier::Verifier(const JobSpec& job, const Plan& plan, int rank, const std::string& sample_key,
                   Device* device, Stream* stream, Communicator* world)
    : job_(job),
      plan_(plan),
      rank_(rank),
      device_(device),
      stream_(stream),
      world_(world),
      mask_(job.mask.Make(job.tokens)),
      layout_(plan.MakeTokenLayout()),
      at_(plan.mesh.CoordOf(rank)),
      positions_(SamplePositions(sample_key, job.tokens, job.verify_rows)) {
  for (size_t i = 0; i < positions_.size(); ++i) batch_rows_.push_back(static_cast<int64_t>(i) % job.batch);
}

const TensorError* Verifier::worst() const {
  const TensorError* worst = nullptr;
  for (const TensorError& e : errors_) {
    // A NaN is the worst there is: no comparison finds it otherwise.
    if (!worst || std::isnan(e.error) || e.error > worst->error) worst = &e;
    if (std::isnan(worst->error)) break;
  }
  return worst;
}

int64_t Verifier::RowOf(int sample, const TokenShare& share) const {
  const int64_t index = share.LowerBound(positions_[sample]);
  if (index >= share.size() || share.PositionAt(index) != positions_[sample]) return -1;
  return index * job_.batch + batch_rows_[sample];
}

absl::StatusOr<std::vector<double>> Verifier::Gather(Pass pass, const std::vector<double>& mine) {
  const int64_t each = static_cast<int64_t>(mine.size() * sizeof(double));
  std::vector<double> all(mine.size() * world_->size());
  if (each == 0) return all;
  SEQPAR_ASSIGN_OR_RETURN(Buffer send, device_->Allocate(each, "verification"));
  SEQPAR_ASSIGN_OR_RETURN(Buffer recv, device_->Allocate(each * world_->size(), "verification"));
  device_->CopyFromHost(*stream_, mine.data(), send.data(), each);
  world_->AllGather(*stream_, {Operation::kVerify, pass}, send.data(),
                    std::vector<int64_t>(world_->size(), each), recv.data());
  device_->CopyToHost(*stream_, recv.data(), all.data(), each * world_->size());
  SEQPAR_RETURN_IF_ERROR(stream_->Synchronize());
  return all;
}

absl::StatusOr<Rows> Verifier::Share(Pass pass, const Matrix& matrix, const TokenShare& share) {
  Rows mine(static_cast<int64_t>(positions_.size()), matrix.cols);
  for (int i = 0; i < mine.rows; ++i) {
    const int64_t row = RowOf(i, share);
    if (row < 0) continue;
    SEQPAR_ASSIGN_OR_RETURN(const Rows one, ReadRows(device_, stream_, matrix, row, row + 1));
    std::copy(one.values.begin(), one.values.end(), mine.At(i));
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(pass, mine.values));
  Rows shared(mine.rows, mine.cols);
  for (int i = 0; i < mine.rows; ++i) {
    // One rank holds the row; zeros come from all others.
    for (int rank = 0; rank < world_->size(); ++rank) {
      const double* from = all.data() + (rank * mine.rows + i) * mine.cols;
      for (int64_t c = 0; c < mine.cols; ++c) shared.At(i)[c] += from[c];
    }
  }
  return shared;
}

absl::StatusOr<Rows> Verifier::SumOverTensor(const Rows& partial) {
  if (plan_.mesh.tensor == 1) return partial;
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(Pass::kForward, partial.values));
  Rows sum(partial.rows, partial.cols);
  for (int rank : plan_.mesh.TensorGroup(rank_)) {
    const double* from = all.data() + rank * partial.values.size();
    for (size_t i = 0; i < partial.values.size(); ++i) sum.values[i] += from[i];
  }
  return sum;
}

absl::StatusOr<Rows> Verifier::Weight(const LayerView& view, const std::string& suffix) {
  const Matrix matrix = view.weight(suffix);
  return ReadRows(device_, stream_, matrix, 0, matrix.rows);
}

absl::StatusOr<Rows> Verifier::Project(const LayerView& view, const Rows& x, const std::string& name,
                                       int64_t begin, int64_t end) {
  SEQPAR_ASSIGN_OR_RETURN(
      Rows y, TimesTransposed(device_, stream_, x, view.weight(name + ".weight").Rows(begin, end)));
  const Matrix bias = view.weight(name + ".bias");
  if (!bias.empty()) {
    SEQPAR_ASSIGN_OR_RETURN(const Rows b, ReadRows(device_, stream_, bias.Cols(begin, end), 0, 1));
    AddBias(b, &y);
  }
  return y;
}

absl::Status Verifier::Compare(const Matrix& got, const TokenShare& share, const Rows& want, Score* score) {
  for (int i = 0; i < want.rows; ++i) {
    const int64_t row = RowOf(i, share);
    if (row < 0) continue;
    SEQPAR_ASSIGN_OR_RETURN(const Rows have, ReadRows(device_, stream_, got, row, row + 1));
    for (int64_t c = 0; c < want.cols; ++c) {
      const double d = have.At(0)[c] - want.At(i)[c];
      score->difference += d * d;
      score->reference += want.At(i)[c] * want.At(i)[c];
    }
  }
  return absl::OkStatus();
}

absl::Status Verifier::CompareKv(const LayerView& view, const Rows& normed, Score* k, Score* v) {
  const HeadRange& heads = view.attention.heads;
  const HeadRange& projected = plan_.ranks[rank_].tensor_heads;
  const int64_t dh = job_.config.head_dim;
  const int64_t begin = (heads.kv_begin - projected.kv_begin) * dh,
                end = (heads.kv_end - projected.kv_begin) * dh;
  SEQPAR_ASSIGN_OR_RETURN(Rows keys, Project(view, normed, "self_attn.k_proj", begin, end));
  SEQPAR_ASSIGN_OR_RETURN(const Rows values, Project(view, normed, "self_attn.v_proj", begin, end));
  if (job_.config.rope_theta) RotateRows(*job_.config.rope_theta, job_.config.head_dim, positions_, &keys);
  const Matrix& kv = view.attention.kv;
  SEQPAR_RETURN_IF_ERROR(Compare(kv.Cols(0, kv.cols / 2), view.attention.tokens, keys, k));
  return Compare(kv.Cols(kv.cols / 2, kv.cols), view.attention.tokens, values, v);
}

// Partial attention of every sample and local head over the keys of this rank's share, merged over the ring.
absl::StatusOr<std::vector<PartialAttention>> Verifier::Attend(const LayerView& view, const Rows& q,
                                                               Pass pass) {
  const AttentionView& a = view.attention;
  const int dh = job_.config.head_dim, heads = a.heads.q_heads(),
            group = job_.config.heads / job_.config.kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(dh));
  std::vector<PartialAttention> parts(positions_.size() * heads, PartialAttention(dh));
  for (size_t i = 0; i < positions_.size(); ++i) {
    const int64_t lo = a.tokens.LowerBound(mask_.Lo(positions_[i])),
                  hi = a.tokens.LowerBound(mask_.Hi(positions_[i]));
    for (int64_t key = lo; key < hi; ++key) {
      const int64_t row = key * job_.batch + batch_rows_[i];
      SEQPAR_ASSIGN_OR_RETURN(const Rows kv, ReadRows(device_, stream_, a.kv, row, row + 1));
      for (int h = 0; h < heads; ++h) {
        const int64_t kv_head = (a.heads.q_begin + h) / group - a.heads.kv_begin;
        const double* k = kv.At(0) + kv_head * dh;
        const double* v = kv.At(0) + kv.cols / 2 + kv_head * dh;
        parts[i * heads + h].Add(scale * Dot(q.At(static_cast<int64_t>(i)) + h * dh, k, dh), v);
      }
    }
  }
  if (plan_.mesh.ring == 1) return parts;
  // All ranks give as many values: as if each had the most heads.
  int most = 0;
  for (const RankPlan& r : plan_.ranks) most = std::max(most, r.heads.q_heads());
  const size_t each = dh + 2;
  std::vector<double> flat(positions_.size() * most * each, 0.0);
  for (size_t i = 0; i < positions_.size(); ++i) {
    for (int h = 0; h < heads; ++h) {
      const PartialAttention& p = parts[i * heads + h];
      double* to = flat.data() + (i * most + h) * each;
      to[0] = p.max;
      to[1] = p.weight;
      std::copy(p.sum.begin(), p.sum.end(), to + 2);
    }
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(pass, flat));
  std::vector<PartialAttention> merged(parts.size(), PartialAttention(dh));
  for (int rank : plan_.mesh.RingGroup(rank_)) {
    for (size_t i = 0; i < positions_.size(); ++i) {
      for (int h = 0; h < heads; ++h) {
        const double* from = all.data() + rank * flat.size() + (i * most + h) * each;
        PartialAttention p(dh);
        p.max = from[0];
        p.weight = from[1];
        p.sum.assign(from + 2, from + each);
        merged[i * heads + h].Merge(p);
      }
    }
  }
  return merged;
}

// The rest of the layer from its attended values: `attended` [samples, local heads * head_dim], of this
// rank's heads.
absl::StatusOr<Rows> Verifier::FinishLayer(const LayerView& view, const Rows& x, const Rows& attended) {
  const ModelConfig& c = job_.config;
  // Each (tensor, ulysses) coordinate multiplies its heads' columns of o_proj; the sum over both is the
  // projection.
  const HeadRange& heads = view.attention.heads;
  const HeadRange& projected = plan_.ranks[rank_].tensor_heads;
  const int64_t begin = int64_t{heads.q_begin - projected.q_begin} * c.head_dim;
  const Matrix o_proj = view.weight("self_attn.o_proj.weight").Cols(begin, begin + attended.cols);
  SEQPAR_ASSIGN_OR_RETURN(const Rows partial, TimesTransposed(device_, stream_, attended, o_proj));
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(Pass::kForward, partial.values));
  Rows hidden = x;
  for (int u = 0; u < plan_.mesh.ulysses; ++u) {
    for (int t = 0; t < plan_.mesh.tensor; ++t) {
      const int rank = plan_.mesh.RankOf({t, u, at_.ring});
      const double* from = all.data() + rank * partial.values.size();
      for (size_t i = 0; i < hidden.values.size(); ++i) hidden.values[i] += from[i];
    }
  }
  SEQPAR_ASSIGN_OR_RETURN(const Rows o_bias, Weight(view, "self_attn.o_proj.bias"));
  AddBias(o_bias, &hidden);
  if (c.mlp == MlpKind::kNone) return hidden;

  Rows normed = hidden;
  if (c.norm != NormKind::kNone) {
    SEQPAR_ASSIGN_OR_RETURN(const Rows weight, Weight(view, "post_attention_layernorm.weight"));
    SEQPAR_ASSIGN_OR_RETURN(const Rows bias, Weight(view, "post_attention_layernorm.bias"));
    normed = NormRows(c.norm, c.norm_eps, hidden, weight, bias);
  }
  const int64_t f = view.weight("mlp.up_proj.weight").rows;
  SEQPAR_ASSIGN_OR_RETURN(const Rows up, Project(view, normed, "mlp.up_proj", 0, f));
  Rows gate;
  if (c.mlp == MlpKind::kSwiglu) {
    SEQPAR_ASSIGN_OR_RETURN(gate, Project(view, normed, "mlp.gate_proj", 0, f));
  }
  SEQPAR_ASSIGN_OR_RETURN(const Rows down, TimesTransposed(device_, stream_, ActivateRows(c.mlp, gate, up),
                                                           view.weight("mlp.down_proj.weight")));
  SEQPAR_ASSIGN_OR_RETURN(Rows out, SumOverTensor(down));
  SEQPAR_ASSIGN_OR_RETURN(const Rows down_bias, Weight(view, "mlp.down_proj.bias"));
  AddBias(down_bias, &out);
  for (size_t i = 0; i < out.values.size(); ++i) out.values[i] += hidden.values[i];
  return out;
}

absl::Status Verifier::CheckForward(int layer, const LayerView& view) {
  const ModelConfig& c = job_.config;
  const TokenShare& own = layout_.OfRank(rank_);
  SEQPAR_ASSIGN_OR_RETURN(const Rows x, Share(Pass::kForward, view.input, own));
  Rows normed = x;
  if (c.norm != NormKind::kNone) {
    SEQPAR_ASSIGN_OR_RETURN(const Rows weight, Weight(view, "input_layernorm.weight"));
    SEQPAR_ASSIGN_OR_RETURN(const Rows bias, Weight(view, "input_layernorm.bias"));
    normed = NormRows(c.norm, c.norm_eps, x, weight, bias);
  }
  Score hidden{"hidden_states"}, k{"k"}, v{"v"};
  SEQPAR_RETURN_IF_ERROR(CompareKv(view, normed, &k, &v));

  const HeadRange& heads = view.attention.heads;
  const int q_first = plan_.ranks[rank_].tensor_heads.q_begin;
  SEQPAR_ASSIGN_OR_RETURN(
      Rows q, Project(view, normed, "self_attn.q_proj", int64_t{heads.q_begin - q_first} * c.head_dim,
                      int64_t{heads.q_end - q_first} * c.head_dim));
  if (c.rope_theta) RotateRows(*c.rope_theta, c.head_dim, positions_, &q);
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<PartialAttention> parts, Attend(view, q, Pass::kForward));
  Rows attended(q.rows, q.cols);
  for (int64_t i = 0; i < q.rows; ++i) {
    for (int h = 0; h < heads.q_heads(); ++h) {
      const PartialAttention& p = parts[i * heads.q_heads() + h];
      for (int d = 0; d < c.head_dim && p.weight > 0; ++d)
        attended.At(i)[h * c.head_dim + d] = p.sum[d] / p.weight;
    }
  }
  SEQPAR_ASSIGN_OR_RETURN(const Rows want, FinishLayer(view, x, attended));
  SEQPAR_RETURN_IF_ERROR(Compare(view.output, own, want, &hidden));
  return Record(layer, Pass::kForward, {hidden, k, v}, /*siblings=*/false);
}

absl::Status Verifier::CheckQueries(const LayerView& view, Score* dq) {
  const AttentionView& a = view.attention;
  const int dh = job_.config.head_dim, heads = a.heads.q_heads(),
            group = job_.config.heads / job_.config.kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(dh));
  // q and dout of the samples, with this rank's heads, from the ring rank that holds them: columns as wide as
  // the most.
  int most = 0;
  for (const RankPlan& r : plan_.ranks) most = std::max(most, r.heads.q_heads());
  const int64_t samples = static_cast<int64_t>(positions_.size()), width = int64_t{2} * most * dh;
  std::vector<double> flat(samples * width, 0.0);
  for (int i = 0; i < samples; ++i) {
    const int64_t row = RowOf(i, a.tokens);
    if (row < 0) continue;
    SEQPAR_ASSIGN_OR_RETURN(const Rows q, ReadRows(device_, stream_, a.q, row, row + 1));
    SEQPAR_ASSIGN_OR_RETURN(const Rows dout, ReadRows(device_, stream_, a.dout, row, row + 1));
    std::copy(q.values.begin(), q.values.end(), flat.begin() + i * width);
    std::copy(dout.values.begin(), dout.values.end(), flat.begin() + i * width + width / 2);
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(Pass::kBackward, flat));
  Rows q(samples, int64_t{heads} * dh), dout(samples, int64_t{heads} * dh);
  for (int rank : plan_.mesh.RingGroup(rank_)) {
    for (int64_t i = 0; i < samples; ++i) {
      const double* from = all.data() + rank * static_cast<int64_t>(flat.size()) + i * width;
      for (int64_t c = 0; c < q.cols; ++c) {
        q.At(i)[c] += from[c];
        dout.At(i)[c] += from[width / 2 + c];
      }
    }
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<PartialAttention> parts, Attend(view, q, Pass::kBackward));

  std::vector<double> partial(samples * most * dh, 0.0);
  for (int64_t i = 0; i < samples; ++i) {
    const int64_t lo = a.tokens.LowerBound(mask_.Lo(positions_[i])),
                  hi = a.tokens.LowerBound(mask_.Hi(positions_[i]));
    for (int64_t key = lo; key < hi; ++key) {
      const int64_t row = key * job_.batch + batch_rows_[i];
      SEQPAR_ASSIGN_OR_RETURN(const Rows kv, ReadRows(device_, stream_, a.kv, row, row + 1));
      for (int h = 0; h < heads; ++h) {
        const PartialAttention& p = parts[i * heads + h];
        const int64_t kv_head = (a.heads.q_begin + h) / group - a.heads.kv_begin;
        const double* k = kv.At(0) + kv_head * dh;
        const double* v = kv.At(0) + kv.cols / 2 + kv_head * dh;
        const double* d = dout.At(i) + h * dh;
        const double probability = std::exp(scale * Dot(q.At(i) + h * dh, k, dh) - p.Lse());
        const double delta = Dot(d, p.sum.data(), dh) / p.weight;
        const double ds = probability * (Dot(d, v, dh) - delta) * scale;
        for (int x = 0; x < dh; ++x) partial[(i * most + h) * dh + x] += ds * k[x];
      }
    }
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> sums, Gather(Pass::kBackward, partial));
  Rows want(samples, int64_t{heads} * dh);
  for (int rank : plan_.mesh.RingGroup(rank_)) {
    for (int64_t i = 0; i < samples; ++i) {
      const double* from = sums.data() + rank * partial.size() + i * most * dh;
      for (int64_t c = 0; c < want.cols; ++c) want.At(i)[c] += from[c];
    }
  }
  return Compare(a.dq, a.tokens, want, dq);
}

absl::Status Verifier::CheckKeys(const LayerView& view, Score* dk, Score* dv) {
  const AttentionView& a = view.attention;
  const int dh = job_.config.head_dim, heads = a.heads.q_heads(),
            group = job_.config.heads / job_.config.kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(dh));
  int most = 0;
  for (const RankPlan& r : plan_.ranks) most = std::max(most, r.heads.kv_heads());
  const int64_t samples = static_cast<int64_t>(positions_.size()), width = int64_t{2} * most * dh;
  const int64_t half = int64_t{a.heads.kv_heads()} * dh;
  // K and V of the sampled keys, from the ring rank that holds them.
  std::vector<double> flat(samples * width, 0.0);
  for (int i = 0; i < samples; ++i) {
    const int64_t row = RowOf(i, a.tokens);
    if (row < 0) continue;
    SEQPAR_ASSIGN_OR_RETURN(const Rows kv, ReadRows(device_, stream_, a.kv, row, row + 1));
    std::copy(kv.At(0), kv.At(0) + half, flat.begin() + i * width);
    std::copy(kv.At(0) + half, kv.At(0) + 2 * half, flat.begin() + i * width + width / 2);
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(Pass::kBackward, flat));
  Rows k(samples, half), v(samples, half);
  for (int rank : plan_.mesh.RingGroup(rank_)) {
    for (int64_t i = 0; i < samples; ++i) {
      const double* from = all.data() + rank * static_cast<int64_t>(flat.size()) + i * width;
      for (int64_t c = 0; c < half; ++c) {
        k.At(i)[c] += from[c];
        v.At(i)[c] += from[width / 2 + c];
      }
    }
  }
  // What this rank's queries add to them.
  std::vector<double> partial(samples * width, 0.0);
  for (int64_t token = 0; token < a.tokens.size(); ++token) {
    const int64_t position = a.tokens.PositionAt(token);
    const int64_t lo = mask_.Lo(position), hi = mask_.Hi(position);
    for (int64_t i = 0; i < samples; ++i) {
      if (positions_[i] < lo || positions_[i] >= hi) continue;
      const int64_t row = token * job_.batch + batch_rows_[i];
      SEQPAR_ASSIGN_OR_RETURN(const Rows q, ReadRows(device_, stream_, a.q, row, row + 1));
      SEQPAR_ASSIGN_OR_RETURN(const Rows out, ReadRows(device_, stream_, a.out, row, row + 1));
      SEQPAR_ASSIGN_OR_RETURN(const Rows dout, ReadRows(device_, stream_, a.dout, row, row + 1));
      SEQPAR_ASSIGN_OR_RETURN(const Rows lse, ReadRows(device_, stream_, a.lse, row, row + 1));
      for (int h = 0; h < heads; ++h) {
        const int64_t kv_head = (a.heads.q_begin + h) / group - a.heads.kv_begin;
        const double* qh = q.At(0) + h * dh;
        const double* d = dout.At(0) + h * dh;
        const double* kh = k.At(i) + kv_head * dh;
        const double* vh = v.At(i) + kv_head * dh;
        const double probability = std::exp(scale * Dot(qh, kh, dh) - lse.At(0)[h]);
        const double ds = probability * (Dot(d, vh, dh) - Dot(d, out.At(0) + h * dh, dh)) * scale;
        double* to = partial.data() + i * width + kv_head * dh;
        for (int x = 0; x < dh; ++x) {
          to[x] += ds * qh[x];
          to[width / 2 + x] += probability * d[x];
        }
      }
    }
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> sums, Gather(Pass::kBackward, partial));
  Rows want_k(samples, half), want_v(samples, half);
  for (int rank : plan_.mesh.RingGroup(rank_)) {
    for (int64_t i = 0; i < samples; ++i) {
      const double* from = sums.data() + rank * static_cast<int64_t>(partial.size()) + i * width;
      for (int64_t c = 0; c < half; ++c) {
        want_k.At(i)[c] += from[c];
        want_v.At(i)[c] += from[width / 2 + c];
      }
    }
  }
  SEQPAR_RETURN_IF_ERROR(Compare(a.dkv.Cols(0, half), a.tokens, want_k, dk));
  return Compare(a.dkv.Cols(half, 2 * half), a.tokens, want_v, dv);
}

absl::Status Verifier::CheckBackward(int layer, const LayerView& view) {
  Score dq{"dq"}, dk{"dk"}, dv{"dv"};
  SEQPAR_RETURN_IF_ERROR(CheckQueries(view, &dq));
  SEQPAR_RETURN_IF_ERROR(CheckKeys(view, &dk, &dv));
  return Record(layer, Pass::kBackward, {dq, dk, dv}, /*siblings=*/true);
}

absl::Status Verifier::Record(int layer, Pass pass, std::vector<Score> scores, bool siblings) {
  std::vector<double> flat;
  for (const Score& s : scores) {
    flat.push_back(s.difference);
    flat.push_back(s.reference);
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(pass, flat));
  double largest = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    scores[i].difference = scores[i].reference = 0;
    for (int rank = 0; rank < world_->size(); ++rank) {
      scores[i].difference += all[rank * flat.size() + 2 * i];
      scores[i].reference += all[rank * flat.size() + 2 * i + 1];
    }
    largest = std::max(largest, scores[i].reference);
  }
  for (const Score& s : scores) {
    // A gradient a million times below its sibling is zero but for rounding.
    const double scale = siblings && s.reference < 1e-12 * largest ? largest : s.reference;
    errors_.push_back(
        {layer, s.tensor, scale > 0 ? std::sqrt(s.difference / scale) : std::sqrt(s.difference)});
  }
  return absl::OkStatus();
}

}  // namespace seqpar
