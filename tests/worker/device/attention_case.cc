#include "tests/worker/device/attention_case.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace seqpar {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// In [-1, 1), by a mixing of the indices (splitmix64's finaliser).
double Noise(uint64_t stream, int64_t row, int64_t col) {
  uint64_t x = stream * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(row) * 0xd1342543de82ef95u + col;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<double>((x ^ (x >> 31)) >> 11) / (uint64_t{1} << 52) - 1;
}

std::function<double(int64_t, int64_t)> NoiseOf(uint64_t stream, double magnitude, bool same_rows) {
  return [=](int64_t row, int64_t col) { return magnitude * Noise(stream, same_rows ? 0 : row, col); };
}

float ScaleOf(const AttentionCase& c) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(c.head_dim)));
}

int KvHeadOf(const AttentionCase& c, int head) {
  return (c.heads.q_begin + head) / c.group - c.heads.kv_begin;
}

// Index of feature d of `head` at (token, batch index) in a matrix of `heads` heads without gaps.
int64_t At(const AttentionCase& c, int64_t token, int64_t b, int heads, int head, int d) {
  return ((token * c.batch + b) * heads + head) * c.head_dim + d;
}

// The ranges of keys [begin, end), counted from begin.
std::shared_ptr<KeyRanges> RangesWithin(const AttentionCase& c, int64_t begin, int64_t end) {
  auto ranges = std::make_shared<KeyRanges>();
  const auto clip = [&](int32_t key) {
    return static_cast<int32_t>(std::clamp<int64_t>(key, begin, end) - begin);
  };
  for (int64_t i = 0; i < c.queries; ++i) {
    ranges->lo.push_back(clip(c.lo[i]));
    ranges->hi.push_back(clip(c.hi[i]));
  }
  return ranges;
}

AttentionTile TileOf(const AttentionCase& c, const AttentionInputs& in, int64_t begin, int64_t end) {
  AttentionTile tile;
  tile.batch = c.batch;
  tile.heads = c.heads;
  tile.group = c.group;
  tile.head_dim = c.head_dim;
  tile.scale = ScaleOf(c);
  tile.queries = c.queries;
  tile.keys = end - begin;
  tile.ranges = RangesWithin(c, begin, end);
  tile.q = in.q;
  tile.k = in.k.matrix().Rows(begin * c.batch, end * c.batch);
  tile.v = in.v.matrix().Rows(begin * c.batch, end * c.batch);
  return tile;
}

std::vector<double> Less(double from, std::vector<double> values) {
  for (double& value : values) value -= from;
  return values;
}

void Finish(Stream& stream) {
  const absl::Status status = stream.Synchronize();
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  SEQPAR_CHECK(status.ok());
}

struct Size {
  double norm = 0, largest = 0;
};
Size SizeOfFinite(const std::vector<double>& values) {
  Size size;
  for (double value : values) {
    if (std::isinf(value)) continue;
    size.norm += value * value;
    size.largest = std::max(size.largest, std::abs(value));
  }
  size.norm = std::sqrt(size.norm);
  return size;
}

}  // namespace

std::string AttentionCase::ToString() const {
  return absl::StrCat("head_dim ", head_dim, ", ", queries, " queries, ", keys, " keys, batch ", batch,
                      ", heads [", heads.q_begin, ", ", heads.q_end, "), group ", group, ", ", JobName(dtype),
                      ", magnitude ", magnitude, " and ", value_magnitude, same_rows ? ", same rows" : "",
                      ", gap ", gap, ", first range [", lo.front(), ", ", hi.front(), "), last [", lo.back(),
                      ", ", hi.back(), ")");
}

void SetFull(AttentionCase* c) {
  c->lo.assign(c->queries, 0);
  c->hi.assign(c->queries, static_cast<int32_t>(c->keys));
}

void SetWindow(AttentionCase* c, int64_t left, int64_t right) {
  c->lo.clear();
  c->hi.clear();
  for (int64_t i = 0; i < c->queries; ++i) {
    const int64_t p = i + c->keys - c->queries;
    const int64_t lo = left < 0 ? 0 : std::clamp<int64_t>(p - left, 0, c->keys);
    const int64_t hi = right < 0 ? c->keys : std::clamp<int64_t>(p + right + 1, lo, c->keys);
    c->lo.push_back(static_cast<int32_t>(lo));
    c->hi.push_back(static_cast<int32_t>(hi));
  }
}

void SetCausal(AttentionCase* c) { SetWindow(c, -1, 0); }

void SetDocuments(AttentionCase* c, const std::vector<int64_t>& lengths) {
  c->lo.clear();
  c->hi.clear();
  int64_t start = 0;
  for (int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) {
      c->lo.push_back(static_cast<int32_t>(start));
      c->hi.push_back(static_cast<int32_t>(start + i + 1));
    }
    start += length;
  }
  SEQPAR_CHECK(start == c->queries && start == c->keys);
}

AttentionInputs::AttentionInputs(const AttentionCase& c)
    : q(c.dtype, c.queries * c.batch, int64_t{c.heads.q_heads()} * c.head_dim, c.gap, c.guard,
        NoiseOf(1, c.magnitude, c.same_rows)),
      k(c.dtype, c.keys * c.batch, int64_t{c.heads.kv_heads()} * c.head_dim, c.gap, c.guard,
        NoiseOf(2, c.magnitude, c.same_rows)),
      v(c.dtype, c.keys * c.batch, int64_t{c.heads.kv_heads()} * c.head_dim, c.gap, c.guard,
        NoiseOf(3, c.value_magnitude, c.same_rows)),
      dout(c.dtype, c.queries * c.batch, int64_t{c.heads.q_heads()} * c.head_dim, c.gap, c.guard,
           NoiseOf(4, c.value_magnitude, c.same_rows)) {}

AttentionResult Oracle(const AttentionCase& c, const AttentionInputs& in) {
  const std::vector<double> q = in.q.Values(), k = in.k.Values(), v = in.v.Values(), dout = in.dout.Values();
  const int heads = c.heads.q_heads(), kv_heads = c.heads.kv_heads(), dim = c.head_dim;
  const double scale = ScaleOf(c);
  AttentionResult r;
  r.out.assign(q.size(), 0);
  r.lse.assign(c.queries * c.batch * heads, -kInfinity);
  r.dq.assign(q.size(), 0);
  r.dk.assign(k.size(), 0);
  r.dv.assign(v.size(), 0);
  std::vector<double> p(c.keys), dp(c.keys);
  for (int64_t i = 0; i < c.queries; ++i) {
    if (c.lo[i] >= c.hi[i]) continue;
    for (int64_t b = 0; b < c.batch; ++b) {
      for (int h = 0; h < heads; ++h) {
        const int kv = KvHeadOf(c, h);
        const int64_t row = At(c, i, b, heads, h, 0);
        double top = -kInfinity, total = 0, delta = 0;
        for (int64_t j = c.lo[i]; j < c.hi[i]; ++j) {
          const int64_t key = At(c, j, b, kv_heads, kv, 0);
          p[j] = dp[j] = 0;
          for (int d = 0; d < dim; ++d) p[j] += scale * q[row + d] * k[key + d];
          for (int d = 0; d < dim; ++d) dp[j] += dout[row + d] * v[key + d];
          top = std::max(top, p[j]);
        }
        for (int64_t j = c.lo[i]; j < c.hi[i]; ++j) total += p[j] = std::exp(p[j] - top);
        r.lse[(i * c.batch + b) * heads + h] = top + std::log(total);
        for (int64_t j = c.lo[i]; j < c.hi[i]; ++j) delta += (p[j] /= total) * dp[j];
        for (int64_t j = c.lo[i]; j < c.hi[i]; ++j) {
          const int64_t key = At(c, j, b, kv_heads, kv, 0);
          const double ds = scale * p[j] * (dp[j] - delta);
          for (int d = 0; d < dim; ++d) {
            r.out[row + d] += p[j] * v[key + d];
            r.dq[row + d] += ds * k[key + d];
            r.dk[key + d] += ds * q[row + d];
            r.dv[key + d] += p[j] * dout[row + d];
          }
        }
      }
    }
  }
  return r;
}

// Float32 [queries * batch, q_heads]: the log-sum-exps that the oracle has, and the products of each query's
// output and its gradient.
std::unique_ptr<GuardedMatrix> ExactLse(const AttentionCase& c, const AttentionResult& oracle) {
  const int heads = c.heads.q_heads();
  return std::make_unique<GuardedMatrix>(DType::kF32, c.queries * c.batch, heads, c.gap, c.guard,
                                         [&](int64_t row, int64_t h) { return oracle.lse[row * heads + h]; });
}
std::unique_ptr<GuardedMatrix> ExactDelta(const AttentionCase& c, const AttentionInputs& in,
                                          const AttentionResult& oracle) {
  const int heads = c.heads.q_heads();
  const std::vector<double> dout = in.dout.Values();
  return std::make_unique<GuardedMatrix>(DType::kF32, c.queries * c.batch, heads, c.gap, c.guard,
                                         [&](int64_t row, int64_t h) {
                                           double sum = 0;
                                           for (int d = 0; d < c.head_dim; ++d) {
                                             const int64_t at = (row * heads + h) * c.head_dim + d;
                                             sum += dout[at] * oracle.out[at];
                                           }
                                           return sum;
                                         });
}

AttentionResult RunOn(Device& device, const AttentionCase& c, const AttentionInputs& in,
                      const AttentionResult& oracle, const std::vector<int64_t>& cuts) {
  const int heads = c.heads.q_heads();
  const int64_t rows = c.queries * c.batch;
  const auto like = [&](const Matrix& m, double value) {
    return std::make_unique<GuardedMatrix>(DType::kF32, m.rows, m.cols, c.gap, c.guard,
                                           [=](int64_t, int64_t) { return value; });
  };
  const auto garbage = std::numeric_limits<double>::quiet_NaN();
  const auto out = like(in.q, garbage), dq = like(in.q, c.gradients_from), dk = like(in.k, c.gradients_from),
             dv = like(in.v, c.gradients_from);
  const GuardedMatrix lse(DType::kF32, rows, heads, c.gap, c.guard,
                          [&](int64_t, int64_t) { return garbage; });
  const auto exact_lse = ExactLse(c, oracle), delta = ExactDelta(c, in, oracle);
  std::vector<int64_t> ends = cuts;
  ends.push_back(c.keys);
  const auto stream = device.CreateStream("attention");
  int64_t begin = 0;
  bool first = true;
  for (int64_t end : ends) {
    const AttentionTile tile = TileOf(c, in, begin, end);
    device.AttentionForward(*stream, tile, *out, lse, first);
    device.AttentionBackward(*stream, tile, in.dout, *exact_lse, *delta, *dq,
                             dk->matrix().Rows(begin * c.batch, end * c.batch),
                             dv->matrix().Rows(begin * c.batch, end * c.batch));
    first = false;
    begin = end;
  }
  Finish(*stream);
  SEQPAR_CHECK(out->GapsIntact() && lse.GapsIntact() && dq->GapsIntact() && dk->GapsIntact() &&
               dv->GapsIntact());
  return {out->Values(), lse.Values(), Less(c.gradients_from, dq->Values()),
          Less(c.gradients_from, dk->Values()), Less(c.gradients_from, dv->Values())};
}

AttentionResult RunWhole(Device& device, const AttentionCase& c, const AttentionInputs& in,
                         const AttentionResult& oracle) {
  const Matrix in_q = in.q, in_k = in.k;
  const int64_t half = in_k.cols;
  const auto like = [&](const Matrix& m, DType type, int64_t gap, const std::vector<double>& values) {
    return std::make_unique<GuardedMatrix>(type, m.rows, m.cols, gap, c.guard, [&](int64_t row, int64_t col) {
      return values.empty() ? std::numeric_limits<double>::quiet_NaN() : values[row * m.cols + col];
    });
  };
  const Matrix joined(nullptr, c.dtype, in_k.rows, 2 * half);
  const std::vector<double> k = in.k.Values(), v = in.v.Values();
  std::vector<double> kvs;
  for (int64_t row = 0; row < joined.rows; ++row) {
    for (const std::vector<double>* from : {&k, &v}) {
      kvs.insert(kvs.end(), from->begin() + row * half, from->begin() + (row + 1) * half);
    }
  }
  const auto q = like(in_q, c.dtype, c.gap, in.q.Values()), kv = like(joined, c.dtype, c.gap, kvs);
  const auto out = like(in_q, c.dtype, c.gap, {});
  const GuardedMatrix lse(DType::kF32, in_q.rows, c.heads.q_heads(), c.gap, c.guard,
                          [](int64_t, int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
  const auto exact_lse = ExactLse(c, oracle), delta = ExactDelta(c, in, oracle);
  // Sums of float32 are the results themselves, which then lie beside the operands and have no gaps.
  const bool direct = c.dtype == DType::kF32;
  const auto q_sum = like(in_q, DType::kF32, 0, {}), kv_sum = like(joined, DType::kF32, 0, {});
  AttentionTile tile = TileOf(c, in, 0, c.keys);
  tile.q = *q;
  tile.k = kv->matrix().Cols(0, half);
  tile.v = kv->matrix().Cols(half, 2 * half);
  const auto stream = device.CreateStream("attention");
  device.WholeAttentionForward(*stream, tile, *out, lse, direct ? out->matrix() : q_sum->matrix());
  const auto& dq = direct ? q_sum : q;
  const auto& dkv = direct ? kv_sum : kv;
  device.WholeAttentionBackward(*stream, tile, in.dout, *exact_lse, *delta, {*dq, *dkv}, {*q_sum, *kv_sum});
  Finish(*stream);
  SEQPAR_CHECK(out->GapsIntact() && lse.GapsIntact() && q->GapsIntact() && kv->GapsIntact());
  const std::vector<double> gradients = dkv->Values();
  AttentionResult result{out->Values(), lse.Values(), dq->Values(), {}, {}};
  for (int64_t row = 0; row < joined.rows; ++row) {
    const auto at = gradients.begin() + row * 2 * half;
    result.dk.insert(result.dk.end(), at, at + half);
    result.dv.insert(result.dv.end(), at + half, at + 2 * half);
  }
  return result;
}

AttentionResult RunThrough(Device& device, const AttentionCase& c, const AttentionInputs& in) {
  const auto zeros = [&](int64_t rows, int64_t cols) {
    return std::make_unique<GuardedMatrix>(DType::kF32, rows, cols, c.gap, c.guard,
                                           [](int64_t, int64_t) { return 0; });
  };
  const Matrix q = in.q, k = in.k;
  const auto out = zeros(q.rows, q.cols), dq = zeros(q.rows, q.cols);
  const auto dk = zeros(k.rows, k.cols), dv = zeros(k.rows, k.cols);
  const auto lse = zeros(q.rows, c.heads.q_heads()), delta = zeros(q.rows, c.heads.q_heads());
  const auto stream = device.CreateStream("attention");
  const AttentionTile tile = TileOf(c, in, 0, c.keys);
  device.AttentionForward(*stream, tile, *out, *lse, true);
  device.AttentionDelta(*stream, c.head_dim, in.dout, *out, *delta);
  device.AttentionBackward(*stream, tile, in.dout, *lse, *delta, *dq, *dk, *dv);
  Finish(*stream);
  return {out->Values(), lse->Values(), dq->Values(), dk->Values(), dv->Values()};
}

RelativeError ErrorOf(const std::vector<double>& x, const std::vector<double>& reference,
                      const std::vector<double>& sibling) {
  SEQPAR_CHECK(x.size() == reference.size());
  double difference = 0, worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == reference[i]) continue;  // infinities of one sign too
    if (std::isnan(x[i])) return {kInfinity, kInfinity};
    difference += (x[i] - reference[i]) * (x[i] - reference[i]);
    worst = std::max(worst, std::abs(x[i] - reference[i]));
  }
  if (difference == 0) return {0, 0};
  Size scale = SizeOfFinite(reference);
  const Size of_sibling = SizeOfFinite(sibling);
  if (scale.norm < 1e-12 * of_sibling.norm) scale = of_sibling;
  if (scale.norm == 0) return {kInfinity, kInfinity};
  return {std::sqrt(difference) / scale.norm, worst / scale.largest};
}

}  // namespace seqpar
