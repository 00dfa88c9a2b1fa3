#include "tests/oracle/attention_oracle.h"

#include <algorithm>
#include <cmath>

namespace seqpar {
namespace {

// Column block [first, first + head_dim) of one batch row, transposed: [head_dim][tokens].
template <typename T>
std::vector<T> Transposed(const AttentionProblem& problem, const std::vector<T>& x, int64_t cols,
                          int64_t batch, int64_t first) {
  std::vector<T> t(problem.head_dim * problem.tokens);
  for (int64_t n = 0; n < problem.tokens; ++n) {
    const T* row = &x[(n * problem.batch + batch) * cols + first];
    for (int d = 0; d < problem.head_dim; ++d) t[d * problem.tokens + n] = row[d];
  }
  return t;
}

// dots[j] = sum over d of row[d] * transposed[d][j], j in [lo, hi).
template <typename T>
void DotAll(const T* row, const std::vector<T>& transposed, int64_t tokens, int head_dim, int64_t lo,
            int64_t hi, T* dots) {
  std::fill(dots + lo, dots + hi, T{0});
  for (int d = 0; d < head_dim; ++d) {
    const T factor = row[d];
    const T* values = &transposed[d * tokens];
    for (int64_t j = lo; j < hi; ++j) dots[j] += factor * values[j];
  }
}

template <typename T>
void AddScaled(T factor, const T* from, int n, T* to) {
  for (int d = 0; d < n; ++d) to[d] += factor * from[d];
}

// total += part, rounded to the storage type; part becomes zero.
template <typename T>
void MovePart(DType storage, std::vector<T>* part, std::vector<T>* total) {
  RoundTo(storage, part);
  for (size_t i = 0; i < part->size(); ++i) (*total)[i] += (*part)[i];
  std::fill(part->begin(), part->end(), T{0});
}

// Every mask shows a query one run of keys.
void VisibleRun(const AttentionProblem& problem, int64_t p, int64_t* lo, int64_t* hi) {
  *lo = *hi = p;
  while (*lo > 0 && Sees(problem.mask, p, *lo - 1)) --*lo;
  while (*hi < problem.tokens && Sees(problem.mask, p, *hi)) ++*hi;
}

struct Runs {
  std::vector<int64_t> lo, hi;
};
Runs VisibleRuns(const AttentionProblem& problem) {
  Runs runs{std::vector<int64_t>(problem.tokens), std::vector<int64_t>(problem.tokens)};
  for (int64_t p = 0; p < problem.tokens; ++p) VisibleRun(problem, p, &runs.lo[p], &runs.hi[p]);
  return runs;
}

}  // namespace

bool Sees(const MaskSpec& mask, int64_t p, int64_t k) {
  int64_t begin = 0;
  for (const int64_t length : mask.documents) {
    const bool p_inside = p >= begin && p < begin + length, k_inside = k >= begin && k < begin + length;
    if (p_inside != k_inside) return false;
    begin += length;
  }
  if (mask.kind == MaskKind::kCausal) return k <= p;
  if (mask.kind == MaskKind::kWindow) {
    return (mask.left < 0 || k >= p - mask.left) && (mask.right < 0 || k <= p + mask.right);
  }
  return true;
}

void RoundTo(DType storage, std::vector<float>* values) {
  if (storage != DType::kBF16) return;
  for (float& value : *values) value = ToFloat(ToBF16(value));
}

template <typename T>
AttentionOutput<T> AttentionForwardOracle(const AttentionProblem& problem, const std::vector<T>& q,
                                          const std::vector<T>& k, const std::vector<T>& v, DType storage) {
  const int dim = problem.head_dim;
  const T scale = 1 / std::sqrt(static_cast<T>(dim));
  const Runs runs = VisibleRuns(problem);
  AttentionOutput<T> result{std::vector<T>(problem.rows() * problem.q_cols()),
                            std::vector<T>(problem.rows() * problem.heads)};
  std::vector<T> p(problem.tokens);
  for (int64_t b = 0; b < problem.batch; ++b) {
    for (int h = 0; h < problem.heads; ++h) {
      const int64_t kv_first = int64_t{h / (problem.heads / problem.kv_heads)} * dim;
      const std::vector<T> kt = Transposed(problem, k, problem.kv_cols(), b, kv_first);
      for (int64_t i = 0; i < problem.tokens; ++i) {
        const int64_t row = i * problem.batch + b, lo = runs.lo[i], hi = runs.hi[i];
        DotAll(&q[row * problem.q_cols() + h * dim], kt, problem.tokens, dim, lo, hi, p.data());
        for (int64_t j = lo; j < hi; ++j) p[j] *= scale;
        const T top = *std::max_element(&p[lo], &p[lo] + (hi - lo));
        T sum = 0;
        for (int64_t j = lo; j < hi; ++j) sum += p[j] = std::exp(p[j] - top);
        T* out = &result.out[row * problem.q_cols() + h * dim];
        for (int64_t j = lo; j < hi; ++j) {
          AddScaled(p[j], &v[(j * problem.batch + b) * problem.kv_cols() + kv_first], dim, out);
        }
        for (int d = 0; d < dim; ++d) out[d] /= sum;
        result.lse[row * problem.heads + h] = top + std::log(sum);
      }
    }
  }
  RoundTo(storage, &result.out);
  return result;
}

template <typename T>
AttentionGrads<T> AttentionBackwardOracle(const AttentionProblem& problem, const std::vector<T>& q,
                                          const std::vector<T>& k, const std::vector<T>& v,
                                          const AttentionOutput<T>& forward, const std::vector<T>& dout,
                                          DType storage) {
  const int dim = problem.head_dim;
  const T scale = 1 / std::sqrt(static_cast<T>(dim));
  const Runs runs = VisibleRuns(problem);
  AttentionGrads<T> grads{std::vector<T>(q.size()), std::vector<T>(k.size()), std::vector<T>(v.size())};
  AttentionGrads<T> part{{}, std::vector<T>(k.size()), std::vector<T>(v.size())};  // of one range of heads
  std::vector<T> p(problem.tokens), dp(problem.tokens);
  for (int64_t b = 0; b < problem.batch; ++b) {
    for (int h = 0; h < problem.heads; ++h) {
      const int64_t kv_first = int64_t{h / (problem.heads / problem.kv_heads)} * dim;
      const std::vector<T> kt = Transposed(problem, k, problem.kv_cols(), b, kv_first);
      const std::vector<T> vt = Transposed(problem, v, problem.kv_cols(), b, kv_first);
      for (int64_t i = 0; i < problem.tokens; ++i) {
        const int64_t row = i * problem.batch + b, lo = runs.lo[i], hi = runs.hi[i];
        const int64_t at = row * problem.q_cols() + h * dim;
        T delta = 0;
        for (int d = 0; d < dim; ++d) delta += dout[at + d] * forward.out[at + d];
        DotAll(&q[at], kt, problem.tokens, dim, lo, hi, p.data());
        DotAll(&dout[at], vt, problem.tokens, dim, lo, hi, dp.data());
        for (int64_t j = lo; j < hi; ++j) {
          p[j] = std::exp(scale * p[j] - forward.lse[row * problem.heads + h]);
          const int64_t key = (j * problem.batch + b) * problem.kv_cols() + kv_first;
          const T ds = scale * p[j] * (dp[j] - delta);
          AddScaled(p[j], &dout[at], dim, &part.dv[key]);
          AddScaled(ds, &q[at], dim, &part.dk[key]);
          AddScaled(ds, &k[key], dim, &grads.dq[at]);
        }
      }
      const bool range_ends =
          std::find(problem.range_ends.begin(), problem.range_ends.end(), h + 1) != problem.range_ends.end();
      if (range_ends || h + 1 == problem.heads) {
        MovePart(storage, &part.dk, &grads.dk);
        MovePart(storage, &part.dv, &grads.dv);
      }
    }
  }
  RoundTo(storage, &grads.dq);
  RoundTo(storage, &grads.dk);
  RoundTo(storage, &grads.dv);
  return grads;
}

template AttentionOutput<double> AttentionForwardOracle(const AttentionProblem&, const std::vector<double>&,
                                                        const std::vector<double>&,
                                                        const std::vector<double>&, DType);
template AttentionOutput<float> AttentionForwardOracle(const AttentionProblem&, const std::vector<float>&,
                                                       const std::vector<float>&, const std::vector<float>&,
                                                       DType);
template AttentionGrads<double> AttentionBackwardOracle(const AttentionProblem&, const std::vector<double>&,
                                                        const std::vector<double>&,
                                                        const std::vector<double>&,
                                                        const AttentionOutput<double>&,
                                                        const std::vector<double>&, DType);
template AttentionGrads<float> AttentionBackwardOracle(const AttentionProblem&, const std::vector<float>&,
                                                       const std::vector<float>&, const std::vector<float>&,
                                                       const AttentionOutput<float>&,
                                                       const std::vector<float>&, DType);

}  // namespace seqpar
