// Verification of a layer's attention gradients. With P = exp(scale q.k - lse) and delta = dout . out:
//   dv = sum over queries of P dout,   dS = P (dout . v - delta),   dq = scale sum dS k,   dk = scale sum dS
//   q.
#include <algorithm>
#include <cmath>

#include "common/base/status.h"
#include "worker/executor/verify.h"

namespace seqpar {
namespace {

constexpr int64_t kRowsAtOnce = 512;  // of q, out and dout brought to the host

}  // namespace

absl::Status Verifier::CheckBackward(const LayerStep& step) {
  const AttentionView view = step.attention();
  const int64_t rows = static_cast<int64_t>(sampled_.size());
  const int64_t kv_width = view.kv.cols / 2;
  const auto q_counts = CountsOf([&](const HeadRange& heads) { return rows * heads.q_heads() * dim_; });
  const auto kv_counts = CountsOf([&](const HeadRange& heads) { return rows * heads.kv_heads() * 2 * dim_; });

  // The ranks of a ring share heads: the sampled rows' values come from the one that holds their token.
  SEQPAR_ASSIGN_OR_RETURN(Rows64 q, OwnRows(view.tokens, view.q));
  SEQPAR_ASSIGN_OR_RETURN(Rows64 dout, OwnRows(view.tokens, view.dout));
  SEQPAR_ASSIGN_OR_RETURN(Rows64 kv, OwnRows(view.tokens, view.kv));
  SEQPAR_RETURN_IF_ERROR(SumOverRing(Pass::kBackward, q_counts, &q));
  SEQPAR_RETURN_IF_ERROR(SumOverRing(Pass::kBackward, q_counts, &dout));
  SEQPAR_RETURN_IF_ERROR(SumOverRing(Pass::kBackward, kv_counts, &kv));

  SEQPAR_ASSIGN_OR_RETURN(const std::vector<double> local, AttendLocally(view, q));
  SEQPAR_ASSIGN_OR_RETURN(const std::vector<Merged> merged,
                          MergeOverRings(Pass::kBackward, local, {plan_.ranks[rank_].ring_group}));
  const Merged& attention = merged[0];

  SEQPAR_ASSIGN_OR_RETURN(Rows64 dq, QueryGradients(view, q, dout, attention));
  SEQPAR_ASSIGN_OR_RETURN(Rows64 dkv, KeyGradients(view, kv));
  SEQPAR_RETURN_IF_ERROR(SumOverRing(Pass::kBackward, q_counts, &dq));
  SEQPAR_RETURN_IF_ERROR(SumOverRing(Pass::kBackward, kv_counts, &dkv));

  std::vector<Difference> differences = {{"dq"}, {"dk"}, {"dv"}};
  SEQPAR_RETURN_IF_ERROR(Compare(view.tokens, view.dq, dq, &differences[0]));
  SEQPAR_RETURN_IF_ERROR(
      Compare(view.tokens, view.dkv.Cols(0, kv_width), dkv.Cols(0, kv_width), &differences[1]));
  SEQPAR_RETURN_IF_ERROR(Compare(view.tokens, view.dkv.Cols(kv_width, 2 * kv_width),
                                 dkv.Cols(kv_width, 2 * kv_width), &differences[2]));
  return Record(Pass::kBackward, step.layer, differences);
}

absl::StatusOr<Rows64> Verifier::QueryGradients(const AttentionView& view, const Rows64& q,
                                                const Rows64& dout, const std::vector<Partial64>& attention) {
  const int q_heads = view.heads.q_heads();
  std::vector<double> lse, delta, out(static_cast<size_t>(dim_));
  for (size_t i = 0; i < attention.size(); ++i) {
    attention[i].Finish(out.data());
    lse.push_back(attention[i].LogSumExp());
    delta.push_back(Dot64(dout.Row(i / q_heads) + (i % q_heads) * dim_, out.data(), dim_));
  }
  Rows64 dq(q.rows, q.cols);
  SEQPAR_RETURN_IF_ERROR(ForEachSeenKey(view, [&](int64_t j, int head, const float* k, const float* v) {
    const int64_t i = j * q_heads + head, at = int64_t{head} * dim_;
    const double p = std::exp(scale_ * Dot64(q.Row(j) + at, k, dim_) - lse[i]);
    const double ds = scale_ * p * (Dot64(dout.Row(j) + at, v, dim_) - delta[i]);
    for (int d = 0; d < dim_; ++d) dq.Row(j)[at + d] += ds * k[d];
  }));
  return dq;
}

absl::StatusOr<Rows64> Verifier::KeyGradients(const AttentionView& view, const Rows64& kv) {
  const int q_heads = view.heads.q_heads();
  const int64_t width = view.kv.cols / 2;
  Rows64 dkv(kv.rows, kv.cols);
  for (int64_t first = 0; first < view.q.rows; first += kRowsAtOnce) {
    const int64_t end = std::min(view.q.rows, first + kRowsAtOnce);
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> q, copier_.Copy(view.q.Rows(first, end)));
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> out, copier_.Copy(view.out.Rows(first, end)));
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> dout, copier_.Copy(view.dout.Rows(first, end)));
    SEQPAR_ASSIGN_OR_RETURN(const std::vector<float> lse, copier_.Copy(view.lse.Rows(first, end)));
    for (int64_t row = first; row < end; ++row) {
      const int64_t position = view.tokens.PositionAt(row / job_.batch);
      const int64_t lo = mask_.Lo(position), hi = mask_.Hi(position);
      for (size_t j = 0; j < sampled_.size(); ++j) {
        const SampledRow& key = sampled_[j];
        if (key.batch != row % job_.batch || key.token < lo || key.token >= hi) continue;
        for (int head = 0; head < q_heads; ++head) {
          const int64_t at = (row - first) * view.q.cols + int64_t{head} * dim_;
          const int64_t kv_at = int64_t{LocalKvHead(view.heads, head)} * dim_;
          const double* k = kv.Row(static_cast<int64_t>(j)) + kv_at;
          double* dk = dkv.Row(static_cast<int64_t>(j)) + kv_at;
          const double p = std::exp(scale_ * Dot64(&q[at], k, dim_) - lse[(row - first) * q_heads + head]);
          const double delta = Dot64(&dout[at], &out[at], dim_);
          const double ds = scale_ * p * (Dot64(&dout[at], k + width, dim_) - delta);
          for (int d = 0; d < dim_; ++d) {
            dk[d] += ds * q[at + d];
            dk[width + d] += p * dout[at + d];
          }
        }
      }
    }
    on_piece_();
  }
  return dkv;
}

}  // namespace seqpar
