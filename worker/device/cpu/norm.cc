#include "worker/device/cpu/norm.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "worker/device/cpu/elementwise.h"
#include "worker/device/cpu/sum_over_rows.h"

namespace seqpar::cpu {
namespace {

// A norm on matrices that are all bfloat16, or, as float32, on any: how spans are read and written, and of
// how many rows forward makes the statistics before it writes them. Of two the ends of the sums, a root and a
// division, are hidden behind each other; more, or of float32, wait longer for memory, which likes reading
// and writing in turns.
template <typename T>
class Spans;

template <>
class Spans<float> {
 public:
  explicit Spans(const RowSimd& simd) : norm(simd.norm), simd_(simd) {}
  RowsOf<const float> Read(const Matrix& m, int64_t row, int64_t col, int64_t n, float* buffer) const {
    return {simd_.Read(m, row, col, n, buffer), m.ld};
  }
  RowsOf<float> Target(const Matrix& m, int64_t row, int64_t col, float* buffer) const {
    return {SpanTarget(m, row, col, buffer), m.ld};
  }
  void Store(const Matrix& m, int64_t row, int64_t col, int64_t n, const float* values) const {
    simd_.Store(m, row, col, n, values);
  }

  const NormOn<float>& norm;
  static constexpr int64_t kTogether = 1;

 private:
  const RowSimd& simd_;
};

template <>
class Spans<BF16> {
 public:
  explicit Spans(const RowSimd& simd) : norm(simd.norm_bf16) {}
  RowsOf<const BF16> Read(const Matrix& m, int64_t row, int64_t col, int64_t, float*) const {
    return {reinterpret_cast<const BF16*>(m.At(row, col)), m.ld};
  }
  RowsOf<BF16> Target(const Matrix& m, int64_t row, int64_t col, float*) const {
    return {reinterpret_cast<BF16*>(m.At(row, col)), m.ld};
  }
  void Store(const Matrix&, int64_t, int64_t, int64_t, const BF16*) const {}

  const NormOn<BF16>& norm;
  static constexpr int64_t kTogether = 2;
};

bool Are(DType type, std::initializer_list<const Matrix*> matrices) {
  return std::all_of(matrices.begin(), matrices.end(),
                     [type](const Matrix* m) { return m == nullptr || m->dtype == type; });
}

// Calls fn(spans) with how these matrices are read and written.
template <typename Fn>
auto WithSpans(const RowSimd& simd, std::initializer_list<const Matrix*> matrices, const Fn& fn) {
  if (Are(DType::kBF16, matrices)) return fn(Spans<BF16>(simd));
  return fn(Spans<float>(simd));
}

// Of so many numbers their mean and the sum of squares of what they are away from it.
struct Spread {
  double count = 0, mean = 0, squares = 0;

  // Adds those of a stretch of n.
  void Add(const Moments& stretch, int64_t n) {
    // Divisions of what is known before the sums are, which rows wait for.
    const double more = static_cast<double>(n), total = count + more;
    const double shift = stretch.sum * (1 / more), away = stretch.center + shift - mean;
    squares += std::max(0.0, stretch.squares - shift * stretch.sum) + away * away * (count * more / total);
    mean += away * (more / total);
    count = total;
  }
};

// Writes (mean, 1 / deviation) of the row.
template <typename T>
void StatsOfRow(const Spans<T>& spans, NormKind kind, const Matrix& x, int64_t row, float eps, float* stats) {
  SpanBuffer buffer;
  Spread spread;
  ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
    const T* values = spans.Read(x, row, col, n, buffer).data;
    if (kind == NormKind::kLayerNorm) {
      spread.Add(spans.norm.moments(values, n), n);
    } else {
      spread.squares += spans.norm.sum_of_squares(values, n);
    }
  });
  stats[2 * row] = static_cast<float>(spread.mean);
  stats[2 * row + 1] =
      static_cast<float>(1 / std::sqrt(spread.squares * (1 / static_cast<double>(x.cols)) + eps));
}

template <typename T>
void NormaliseRows(const Spans<T>& spans, const Matrix& x, const Matrix& weight, const Matrix* bias,
                   const Matrix& y, const float* stats, int64_t begin, int64_t end) {
  SpanBuffer x_buffer, weight_buffer, bias_buffer, y_buffer;
  ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
    const NormRows<T> rows{end - begin, n, spans.Read(x, begin, col, n, x_buffer),
                           spans.Read(weight, 0, col, n, weight_buffer).data, stats + 2 * begin};
    const T* plus = bias == nullptr ? nullptr : spans.Read(*bias, 0, col, n, bias_buffer).data;
    const RowsOf<T> to = spans.Target(y, begin, col, y_buffer);
    spans.norm.normalise(rows, plus, to);
    spans.Store(y, begin, col, n, to.data);
  });
}

// The backward pass through rows.
template <typename T>
class Gradient {
 public:
  Gradient(const Spans<T>& spans, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
           const Matrix& dy, const Matrix* residual, const Matrix& dx)
      : spans_(spans),
        kind_(kind),
        x_(x),
        weight_(weight),
        stats_(stats),
        dy_(dy),
        residual_(residual),
        dx_(dx) {}

  // Adds dy h to weight_sums[cols] and dy to bias_sums (null: not wanted), and writes the rows of dx:
  // inverse_deviation * (g - mean(g) - h mean(g h)); the first mean is LayerNorm's alone.
  void Rows(int64_t begin, int64_t end, float* weight_sums, float* bias_sums) const {
    for (int64_t row = begin; row < end; ++row) Row(row, weight_sums, bias_sums);
    ForEachSpan(x_.cols, [&](int64_t col, int64_t n) {
      spans_.norm.order_sums(weight_sums + col, n);
      if (bias_sums != nullptr) spans_.norm.order_sums(bias_sums + col, n);
    });
  }

 private:
  struct Buffers {
    SpanBuffer x, weight, dy, residual, dx;
  };

  void Row(int64_t row, float* weight_sums, float* bias_sums) const {
    Buffers buffers;
    GradientSums sums{0, 0};
    ForEachSpan(x_.cols, [&](int64_t col, int64_t n) {
      spans_.norm.add_gradients(SpanAt(row, col, n, &buffers), spans_.Read(dy_, row, col, n, buffers.dy),
                                weight_sums + col, bias_sums == nullptr ? nullptr : bias_sums + col, &sums);
    });
    const double cols = static_cast<double>(x_.cols);
    const GradientSums means{kind_ == NormKind::kLayerNorm ? sums.g / cols : 0, sums.gh / cols};
    ForEachSpan(x_.cols, [&](int64_t col, int64_t n) {
      RowsOf<const T> around{nullptr, 0};
      if (residual_ != nullptr) around = spans_.Read(*residual_, row, col, n, buffers.residual);
      const RowsOf<T> to = spans_.Target(dx_, row, col, buffers.dx);
      spans_.norm.gradient(SpanAt(row, col, n, &buffers), spans_.Read(dy_, row, col, n, buffers.dy), &means,
                           around, to);
      spans_.Store(dx_, row, col, n, to.data);
    });
  }

  NormRows<T> SpanAt(int64_t row, int64_t col, int64_t n, Buffers* buffers) const {
    return {1, n, spans_.Read(x_, row, col, n, buffers->x),
            spans_.Read(weight_, 0, col, n, buffers->weight).data, stats_ + 2 * row};
  }

  const Spans<T> spans_;
  const NormKind kind_;
  const Matrix &x_, &weight_;
  const float* const stats_;
  const Matrix& dy_;
  const Matrix* const residual_;
  const Matrix& dx_;
};

}  // namespace

void NormForward(const RowSimd& simd, ThreadPool& pool, NormKind kind, const Matrix& x, const Matrix& weight,
                 const Matrix* bias, float eps, const Matrix& y, float* stats) {
  WithSpans(simd, {&x, &weight, bias, &y}, [&](const auto& spans) {
    ParallelRows(pool, x.rows, x.cols, [&](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end; first += spans.kTogether) {
        const int64_t last = std::min(end, first + spans.kTogether);
        for (int64_t row = first; row < last; ++row) StatsOfRow(spans, kind, x, row, eps, stats);
        NormaliseRows(spans, x, weight, bias, y, stats, first, last);
      }
    });
  });
}

absl::Status NormBackward(const RowSimd& simd, const CpuContext& cpu, NormKind kind, const Matrix& x,
                          const Matrix& weight, const float* stats, const Matrix& dy, const Matrix* residual,
                          const Matrix& dx, float* dweight, float* dbias) {
  return WithSpans(simd, {&x, &weight, &dy, residual, &dx}, [&](const auto& spans) {
    const Gradient gradient(spans, kind, x, weight, stats, dy, residual, dx);
    return SumOverRows(
        cpu, x.rows, dbias == nullptr ? x.cols : 2 * x.cols,
        [&](int64_t begin, int64_t end, float* sums) {
          gradient.Rows(begin, end, sums, dbias == nullptr ? nullptr : sums + x.cols);
        },
        [&](int64_t col, double total) {
          float& sum = col < x.cols ? dweight[col] : dbias[col - x.cols];
          sum = static_cast<float>(sum + total);
        });
  });
}

}  // namespace seqpar::cpu
