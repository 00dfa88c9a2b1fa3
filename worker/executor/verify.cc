#include "worker/executor/verify.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/job/verification.h"
#include "common/tensor/seeded.h"

namespace seqpar {
namespace {

constexpr int64_t kRowsAtOnce = 1024;  // of K and V brought to the host

// Gradients this far below their largest sibling are zero but for rounding.
constexpr double kVanishing = 1e-3;

// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
uint64_t NextRandom(uint64_t* state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

std::vector<SampledRow> SampleRows(const std::string& job_id, int rows, int64_t tokens, int64_t batch) {
  uint64_t state = Fnv1a64(job_id);
  const int64_t count = std::min<int64_t>(rows, tokens);
  std::vector<SampledRow> sampled;
  for (int64_t i = 0; i < count; ++i) {
    // One of each of `count` equal stretches.
    const int64_t begin = i * tokens / count, end = (i + 1) * tokens / count;
    const int64_t token =
        begin + static_cast<int64_t>(NextRandom(&state) % static_cast<uint64_t>(end - begin));
    sampled.push_back({token, static_cast<int64_t>(NextRandom(&state) % static_cast<uint64_t>(batch))});
  }
  return sampled;
}

Verifier::Verifier(const JobSpec& job, const Plan& plan, int rank, const std::string& job_id,
                   Communicator* world, const RankStreams& streams, std::function<void()> on_piece,
                   int64_t bytes_at_once)
    : job_(job),
      plan_(plan),
      rank_(rank),
      world_(world),
      streams_(streams),
      on_piece_(std::move(on_piece)),
      bytes_at_once_(bytes_at_once),
      copier_(streams.device, streams.compute),
      mask_(job.mask.Make(job.tokens)),
      group_(job.config.heads / job.config.kv_heads),
      dim_(job.config.head_dim),
      scale_(1 / std::sqrt(static_cast<double>(job.config.head_dim))),
      sampled_(SampleRows(job_id, job.verify_rows, job.tokens, job.batch)) {}

absl::Status Verifier::Check(const LayerStep& step) {
  return step.pass == Pass::kForward ? CheckForward(step) : CheckBackward(step);
}

v1::Verification Verifier::result() const {
  v1::Verification result;
  result.set_ran(true);
  result.set_rows(static_cast<int>(sampled_.size()));
  result.set_max_error(job_.verify_max_error);
  for (const v1::LayerError& error : errors_) {
    *result.add_layers() = error;
    if (!result.worst_tensor().empty() && !IsWorseError(error.error(), result.worst_error())) continue;
    result.set_worst_error(error.error());
    result.set_worst_layer(error.layer());
    result.set_worst_tensor(error.tensor());
  }
  return result;
}

absl::Status Verifier::CheckForward(const LayerStep& step) {
  const AttentionView view = step.attention();
  const WeightSet& weights = *step.weights;
  SEQPAR_ASSIGN_OR_RETURN(const auto in_out, GatherInOut(step));
  const auto& [x, y] = in_out;
  SEQPAR_ASSIGN_OR_RETURN(const Rows64 h,
                          Norm64(copier_, job_.config.norm, job_.config.norm_eps, x,
                                 weights.Get(WeightId::kInputNorm), weights.Get(WeightId::kInputNormBias)));
  std::vector<Difference> differences = {{"hidden_states"}, {"k"}, {"v"}};
  SEQPAR_ASSIGN_OR_RETURN(const Rows64 q,
                          ProjectAndCompare(weights, view, h, &differences[1], &differences[2]));
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> local, AttendLocally(view, q));
  const int64_t rows = static_cast<int64_t>(sampled_.size());
  std::vector<std::vector<int>> rings;
  for (const RankPlan& other : plan_.ranks) {
    if (plan_.mesh.CoordOf(other.rank).ring == 0) rings.push_back(other.ring_group);
  }
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<Merged> merged, MergeOverRings(Pass::kForward, local, rings));
  Rows64 attention(rows, int64_t{job_.config.heads} * dim_);
  for (size_t i = 0; i < rings.size(); ++i) {
    const HeadRange& heads = plan_.ranks[rings[i][0]].heads;  // those of the whole ring
    for (int64_t row = 0; row < rows; ++row) {
      for (int head = 0; head < heads.q_heads(); ++head) {
        merged[i][row * heads.q_heads() + head].Finish(attention.Row(row) + (heads.q_begin + head) * dim_);
      }
    }
  }
  SEQPAR_ASSIGN_OR_RETURN(const Rows64 want, FinishLayer(weights, x, attention));
  for (size_t i = 0; i < want.data.size(); ++i) {
    const float got = static_cast<float>(y.data[i]);
    differences[0].Add(&want.data[i], &got, 1);
  }
  return Record(Pass::kForward, step.layer, differences);
}

absl::StatusOr<std::pair<Rows64, Rows64>> Verifier::GatherInOut(const LayerStep& step) {
  const TokenShare& tokens = plan_.ranks[rank_].tokens;
  SEQPAR_ASSIGN_OR_RETURN(Rows64 x, OwnRows(tokens, step.x));
  SEQPAR_ASSIGN_OR_RETURN(Rows64 y, OwnRows(tokens, step.y));
  SEQPAR_RETURN_IF_ERROR(SumOverAll(Pass::kForward, &x));
  SEQPAR_RETURN_IF_ERROR(SumOverAll(Pass::kForward, &y));
  return std::make_pair(std::move(x), std::move(y));
}

absl::StatusOr<Rows64> Verifier::ProjectAndCompare(const WeightSet& weights, const AttentionView& view,
                                                   const Rows64& h, Difference* k, Difference* v) {
  const HeadRange& tensor = plan_.ranks[rank_].tensor_heads;
  // The rows of this rank's heads among those of its tensor rank.
  const auto project = [&](WeightId weight, WeightId bias, int begin, int end) {
    const Matrix w = weights.Get(weight), b = weights.Get(bias);
    return Linear64(copier_, h, w.Rows(begin * dim_, end * dim_),
                    b.empty() ? Matrix() : b.Cols(begin * dim_, end * dim_));
  };
  const HeadRange& heads = view.heads;
  const int kv_begin = heads.kv_begin - tensor.kv_begin, kv_end = heads.kv_end - tensor.kv_begin;
  SEQPAR_ASSIGN_OR_RETURN(Rows64 q, project(WeightId::kQ, WeightId::kQBias, heads.q_begin - tensor.q_begin,
                                            heads.q_end - tensor.q_begin));
  SEQPAR_ASSIGN_OR_RETURN(Rows64 want_k, project(WeightId::kK, WeightId::kKBias, kv_begin, kv_end));
  SEQPAR_ASSIGN_OR_RETURN(const Rows64 want_v, project(WeightId::kV, WeightId::kVBias, kv_begin, kv_end));
  for (size_t j = 0; j < sampled_.size() && job_.config.rope_theta.has_value(); ++j) {
    for (Rows64* rows : {&q, &want_k}) {
      for (int64_t head = 0; head < rows->cols; head += dim_) {
        Rotate64(rows->Row(j) + head, dim_, sampled_[j].token, *job_.config.rope_theta);
      }
    }
  }
  const int64_t width = view.kv.cols / 2;
  SEQPAR_RETURN_IF_ERROR(Compare(view.tokens, view.kv.Cols(0, width), want_k, k));
  SEQPAR_RETURN_IF_ERROR(Compare(view.tokens, view.kv.Cols(width, 2 * width), want_v, v));
  return q;
}

absl::Status Verifier::ForEachSeenKey(const AttentionView& view, const SeenKey& use) const {
  const int64_t width = view.kv.cols / 2;
  return copier_.ForEachPiece(view.kv, kRowsAtOnce, [&](int64_t first, int64_t rows, const float* values) {
    for (size_t j = 0; j < sampled_.size(); ++j) {
      // Key positions ascend: what a query sees of this rank is one range of tokens.
      const int64_t begin = view.tokens.LowerBound(mask_.Lo(sampled_[j].token));
      const int64_t end = view.tokens.LowerBound(mask_.Hi(sampled_[j].token));
      const int64_t from = std::max(begin, (first - sampled_[j].batch + job_.batch - 1) / job_.batch);
      for (int64_t token = from; token < end; ++token) {
        const int64_t row = token * job_.batch + sampled_[j].batch - first;
        if (row >= rows) break;
        const float* k = values + row * view.kv.cols;
        for (int head = 0; head < view.heads.q_heads(); ++head) {
          const int64_t offset = int64_t{LocalKvHead(view.heads, head)} * dim_;
          use(static_cast<int64_t>(j), head, k + offset, k + width + offset);
        }
      }
    }
    on_piece_();
  });
}

absl::StatusOr<std::vector<double>> Verifier::AttendLocally(const AttentionView& view, const Rows64& q) {
  const int q_heads = view.heads.q_heads();
  std::vector<Partial64> partials(sampled_.size() * static_cast<size_t>(q_heads), Partial64(dim_));
  SEQPAR_RETURN_IF_ERROR(ForEachSeenKey(view, [&](int64_t j, int head, const float* k, const float* v) {
    partials[j * q_heads + head].Add(scale_ * Dot64(q.Row(j) + head * dim_, k, dim_), v);
  }));
  std::vector<double> packed(partials.size() * static_cast<size_t>(dim_ + 2));
  for (size_t i = 0; i < partials.size(); ++i) partials[i].Pack(&packed[i * (dim_ + 2)]);
  return packed;
}

absl::StatusOr<Rows64> Verifier::FinishLayer(const WeightSet& weights, const Rows64& x,
                                             const Rows64& attention) {
  // Each slice of the weights is held by many ranks: those of the first ring and ulysses rank stand for all.
  const MeshCoord at = plan_.mesh.CoordOf(rank_);
  const bool contributes = at.ring == 0 && at.ulysses == 0;
  const HeadRange& tensor = plan_.ranks[rank_].tensor_heads;
  Rows64 x1(x.rows, x.cols);
  if (contributes) {
    const Rows64 mine = attention.Cols(tensor.q_begin * dim_, tensor.q_end * dim_);
    SEQPAR_ASSIGN_OR_RETURN(x1, Linear64(copier_, mine, weights.Get(WeightId::kO),
                                         at.tensor == 0 ? weights.Get(WeightId::kOBias) : Matrix()));
  }
  SEQPAR_RETURN_IF_ERROR(SumOverAll(Pass::kForward, &x1));
  for (size_t i = 0; i < x1.data.size(); ++i) x1.data[i] += x.data[i];
  if (job_.config.mlp == MlpKind::kNone) return x1;

  SEQPAR_ASSIGN_OR_RETURN(const Rows64 h,
                          Norm64(copier_, job_.config.norm, job_.config.norm_eps, x1,
                                 weights.Get(WeightId::kPostNorm), weights.Get(WeightId::kPostNormBias)));
  Rows64 y(x.rows, x.cols);
  if (contributes) {
    SEQPAR_ASSIGN_OR_RETURN(const Rows64 activated, ActivateMlp(weights, h));
    SEQPAR_ASSIGN_OR_RETURN(y, Linear64(copier_, activated, weights.Get(WeightId::kDown),
                                        at.tensor == 0 ? weights.Get(WeightId::kDownBias) : Matrix()));
  }
  SEQPAR_RETURN_IF_ERROR(SumOverAll(Pass::kForward, &y));
  for (size_t i = 0; i < y.data.size(); ++i) y.data[i] += x1.data[i];
  return y;
}

absl::StatusOr<Rows64> Verifier::ActivateMlp(const WeightSet& weights, const Rows64& h) {
  SEQPAR_ASSIGN_OR_RETURN(Rows64 up,
                          Linear64(copier_, h, weights.Get(WeightId::kUp), weights.Get(WeightId::kUpBias)));
  Rows64 gate(h.rows, up.cols);
  if (job_.config.mlp == MlpKind::kSwiglu) {
    SEQPAR_ASSIGN_OR_RETURN(
        gate, Linear64(copier_, h, weights.Get(WeightId::kGate), weights.Get(WeightId::kGateBias)));
  }
  for (size_t i = 0; i < up.data.size(); ++i) {
    up.data[i] = Activation64(job_.config.mlp, gate.data[i], up.data[i]);
  }
  return up;
}

// --- rows ---

void Verifier::Difference::Add(const double* want, const float* got, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double off = got[i] - want[i];
    difference += off * off;
    reference += want[i] * want[i];
  }
}

int64_t Verifier::RowIn(const TokenShare& share, const SampledRow& sampled) const {
  const int64_t index = share.LowerBound(sampled.token);
  if (index >= share.size() || share.PositionAt(index) != sampled.token) return -1;
  return index * job_.batch + sampled.batch;
}

absl::StatusOr<Rows64> Verifier::OwnRows(const TokenShare& share, const Matrix& matrix) const {
  Rows64 rows(static_cast<int64_t>(sampled_.size()), matrix.cols);
  for (size_t j = 0; j < sampled_.size(); ++j) {
    const int64_t row = RowIn(share, sampled_[j]);
    if (row < 0) continue;
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> values, copier_.Copy(matrix.Rows(row, row + 1)));
    std::copy(values.begin(), values.end(), rows.Row(static_cast<int64_t>(j)));
  }
  return rows;
}

absl::Status Verifier::Compare(const TokenShare& share, const Matrix& got, const Rows64& want,
                               Difference* difference) const {
  for (size_t j = 0; j < sampled_.size(); ++j) {
    const int64_t row = RowIn(share, sampled_[j]);
    if (row < 0) continue;
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> values, copier_.Copy(got.Rows(row, row + 1)));
    difference->Add(want.Row(static_cast<int64_t>(j)), values.data(), want.cols);
  }
  return absl::OkStatus();
}

absl::Status Verifier::Record(Pass pass, int layer, const std::vector<Difference>& differences) {
  Rows64 sums(static_cast<int64_t>(differences.size()), 2);
  for (size_t i = 0; i < differences.size(); ++i) {
    sums.Row(i)[0] = differences[i].difference;
    sums.Row(i)[1] = differences[i].reference;
  }
  SEQPAR_RETURN_IF_ERROR(SumOverAll(pass, &sums));
  double largest = 0;
  for (int64_t i = 0; i < sums.rows; ++i) largest = std::max(largest, std::sqrt(sums.Row(i)[1]));
  for (int64_t i = 0; i < sums.rows; ++i) {
    const double difference = std::sqrt(sums.Row(i)[0]), reference = std::sqrt(sums.Row(i)[1]);
    const bool vanishes = pass == Pass::kBackward && reference < kVanishing * largest;
    const double scale = vanishes ? largest : reference;
    v1::LayerError error;
    error.set_layer(layer);
    error.set_tensor(differences[i].tensor);
    error.set_error(scale > 0 ? difference / scale : difference);
    errors_.push_back(error);
  }
  return absl::OkStatus();
}

}  // namespace seqpar
