#include "worker/device/cpu/norm.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <type_traits>

#include "worker/device/cpu/elementwise.h"
#include "worker/device/cpu/sum_over_rows.h"

namespace seqpar::cpu {
namespace {

// A norm on matrices that are all bfloat16, or, as float32, on any: how spans are read and written.
template <typename T>
class Spans;

template <>
class Spans<float> {
 public:
  explicit Spans(const RowSimd& simd) : norm(simd.norm), simd_(simd) {}
  const float* Read(const Matrix& m, int64_t row, int64_t col, int64_t n, float* buffer) const {
    return simd_.Read(m, row, col, n, buffer);
  }
  float* Target(const Matrix& m, int64_t row, int64_t col, float* buffer) const {
    return SpanTarget(m, row, col, buffer);
  }
  void Store(const Matrix& m, int64_t row, int64_t col, int64_t n, const float* values) const {
    simd_.Store(m, row, col, n, values);
  }

  const NormOn<float>& norm;

 private:
  const RowSimd& simd_;
};

template <>
class Spans<BF16> {
 public:
  explicit Spans(const RowSimd& simd) : norm(simd.norm_bf16) {}
  const BF16* Read(const Matrix& m, int64_t row, int64_t col, int64_t, float*) const {
    return reinterpret_cast<const BF16*>(m.At(row, col));
  }
  BF16* Target(const Matrix& m, int64_t row, int64_t col, float*) const {
    return reinterpret_cast<BF16*>(m.At(row, col));
  }
  void Store(const Matrix&, int64_t, int64_t, int64_t, const BF16*) const {}

  const NormOn<BF16>& norm;
};

bool AreBF16(std::initializer_list<const Matrix*> matrices) {
  return std::all_of(matrices.begin(), matrices.end(),
                     [](const Matrix* m) { return m == nullptr || m->dtype == DType::kBF16; });
}

// Writes (mean, 1 / deviation) of the row.
template <typename T>
void StatsOfRow(const Spans<T>& spans, NormKind kind, const Matrix& x, int64_t row, float eps, float* stats) {
  SpanBuffer buffer;
  double mean = 0;
  if (kind == NormKind::kLayerNorm) {
    ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
      mean += spans.norm.sum(spans.Read(x, row, col, n, buffer), n);
    });
    mean /= static_cast<double>(x.cols);
  }
  const float center = static_cast<float>(mean);
  double square = 0;
  ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
    square += spans.norm.sum_of_squares(spans.Read(x, row, col, n, buffer), center, n);
  });
  stats[2 * row] = center;
  stats[2 * row + 1] = static_cast<float>(1 / std::sqrt(square / static_cast<double>(x.cols) + eps));
}

template <typename T>
void NormaliseRow(const Spans<T>& spans, const Matrix& x, const Matrix& weight, const Matrix* bias,
                  const Matrix& y, int64_t row, const float* stats) {
  SpanBuffer x_buffer, weight_buffer, bias_buffer, y_buffer;
  ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
    const NormSpan<T> span{n, spans.Read(x, row, col, n, x_buffer),
                           spans.Read(weight, 0, col, n, weight_buffer), stats[2 * row], stats[2 * row + 1]};
    const T* plus = bias == nullptr ? nullptr : spans.Read(*bias, 0, col, n, bias_buffer);
    T* to = spans.Target(y, row, col, y_buffer);
    spans.norm.normalise(span, plus, to);
    spans.Store(y, row, col, n, to);
  });
}

// Rows of bfloat16 together, as many as the first level cache holds: what one row's root and division take is
// hidden behind the sums of the next. Rows of float32 wait for memory instead, which likes reading and
// writing in turns.
template <typename T>
void ForwardRows(const Spans<T>& spans, NormKind kind, const Matrix& x, const Matrix& weight,
                 const Matrix* bias, float eps, const Matrix& y, float* stats, int64_t begin, int64_t end) {
  constexpr int64_t kTogetherMax = std::is_same_v<T, BF16> ? 8 : 1;
  const int64_t together = std::clamp<int64_t>(8192 / std::max<int64_t>(1, x.cols), 1, kTogetherMax);
  for (int64_t first = begin; first < end; first += together) {
    const int64_t last = std::min(end, first + together);
    for (int64_t row = first; row < last; ++row) StatsOfRow(spans, kind, x, row, eps, stats);
    for (int64_t row = first; row < last; ++row) NormaliseRow(spans, x, weight, bias, y, row, stats);
  }
}

// The backward pass through one row after the other.
template <typename T>
class Gradient {
 public:
  Gradient(const RowSimd& simd, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
           const Matrix& dy, const Matrix* residual, const Matrix& dx)
      : spans_(simd),
        kind_(kind),
        x_(x),
        weight_(weight),
        stats_(stats),
        dy_(dy),
        residual_(residual),
        dx_(dx) {}

  // Adds dy h to weight_sums[cols] and dy to bias_sums (null: not wanted), and writes the row of dx:
  // inverse_deviation * (g - mean(g) - h mean(g h)); the first mean is LayerNorm's alone.
  void Row(int64_t row, float* weight_sums, float* bias_sums) const {
    Buffers buffers;
    double sum_g = 0, sum_gh = 0;
    ForEachSpan(x_.cols, [&](int64_t col, int64_t n) {
      const NormSpan<T> span = SpanAt(row, col, n, &buffers);
      const T* dys = spans_.Read(dy_, row, col, n, buffers.dy);
      const GradientSums sums = spans_.norm.add_gradients(span, dys, weight_sums + col,
                                                          bias_sums == nullptr ? nullptr : bias_sums + col);
      sum_g += sums.g;
      sum_gh += sums.gh;
    });
    const double cols = static_cast<double>(x_.cols);
    const GradientSums means{kind_ == NormKind::kLayerNorm ? static_cast<float>(sum_g / cols) : 0,
                             static_cast<float>(sum_gh / cols)};
    ForEachSpan(x_.cols, [&](int64_t col, int64_t n) {
      const NormSpan<T> span = SpanAt(row, col, n, &buffers);
      const T* dys = spans_.Read(dy_, row, col, n, buffers.dy);
      const T* around =
          residual_ == nullptr ? nullptr : spans_.Read(*residual_, row, col, n, buffers.residual);
      T* to = spans_.Target(dx_, row, col, buffers.dx);
      spans_.norm.gradient(span, dys, means, around, to);
      spans_.Store(dx_, row, col, n, to);
    });
  }

 private:
  struct Buffers {
    SpanBuffer x, weight, dy, residual, dx;
  };

  NormSpan<T> SpanAt(int64_t row, int64_t col, int64_t n, Buffers* buffers) const {
    return {n, spans_.Read(x_, row, col, n, buffers->x), spans_.Read(weight_, 0, col, n, buffers->weight),
            stats_[2 * row], stats_[2 * row + 1]};
  }

  const Spans<T> spans_;
  const NormKind kind_;
  const Matrix &x_, &weight_;
  const float* const stats_;
  const Matrix& dy_;
  const Matrix* const residual_;
  const Matrix& dx_;
};

template <typename T>
absl::Status Backward(const Gradient<T>& gradient, const CpuContext& cpu, int64_t rows, int64_t cols,
                      float* dweight, float* dbias) {
  return SumOverRows(
      cpu, rows, dbias == nullptr ? cols : 2 * cols,
      [&](int64_t row, float* sums) { gradient.Row(row, sums, dbias == nullptr ? nullptr : sums + cols); },
      [&](int64_t col, double total) {
        float& sum = col < cols ? dweight[col] : dbias[col - cols];
        sum = static_cast<float>(sum + total);
      });
}

}  // namespace

void NormForward(const RowSimd& simd, ThreadPool& pool, NormKind kind, const Matrix& x, const Matrix& weight,
                 const Matrix* bias, float eps, const Matrix& y, float* stats) {
  const bool bf16 = AreBF16({&x, &weight, bias, &y});
  ParallelRows(pool, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    if (bf16) {
      ForwardRows(Spans<BF16>(simd), kind, x, weight, bias, eps, y, stats, begin, end);
    } else {
      ForwardRows(Spans<float>(simd), kind, x, weight, bias, eps, y, stats, begin, end);
    }
  });
}

absl::Status NormBackward(const RowSimd& simd, const CpuContext& cpu, NormKind kind, const Matrix& x,
                          const Matrix& weight, const float* stats, const Matrix& dy, const Matrix* residual,
                          const Matrix& dx, float* dweight, float* dbias) {
  if (AreBF16({&x, &weight, &dy, residual, &dx})) {
    return Backward(Gradient<BF16>(simd, kind, x, weight, stats, dy, residual, dx), cpu, x.rows, x.cols,
                    dweight, dbias);
  }
  return Backward(Gradient<float>(simd, kind, x, weight, stats, dy, residual, dx), cpu, x.rows, x.cols,
                  dweight, dbias);
}

}  // namespace seqpar::cpu
