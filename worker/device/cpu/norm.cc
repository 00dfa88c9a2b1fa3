#include "worker/device/cpu/norm.h"

#include <cmath>

#include "worker/device/cpu/elementwise.h"
#include "worker/device/cpu/sum_over_rows.h"

namespace seqpar::cpu {
namespace {

struct RowStats {
  float mean;
  float inverse_deviation;
};

RowStats StatsOfRow(const RowSimd& simd, NormKind kind, const Matrix& x, int64_t row, float eps) {
  SpanBuffer buffer;
  double mean = 0;
  if (kind == NormKind::kLayerNorm) {
    ForEachSpan(x.cols,
                [&](int64_t col, int64_t n) { mean += simd.sum(simd.Read(x, row, col, n, buffer), n); });
    mean /= static_cast<double>(x.cols);
  }
  const float center = static_cast<float>(mean);
  double square = 0;
  ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
    square += simd.sum_of_squares(simd.Read(x, row, col, n, buffer), center, n);
  });
  return {center, static_cast<float>(1 / std::sqrt(square / static_cast<double>(x.cols) + eps))};
}

// The backward pass through one row after the other.
class Gradient {
 public:
  Gradient(const RowSimd& simd, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
           const Matrix& dy, const Matrix* residual, const Matrix& dx)
      : simd_(simd),
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
      const NormSpan span = SpanAt(row, col, n, &buffers);
      const float* dys = simd_.Read(dy_, row, col, n, buffers.dy);
      const GradientSums sums =
          simd_.add_gradients(span, dys, weight_sums + col, bias_sums == nullptr ? nullptr : bias_sums + col);
      sum_g += sums.g;
      sum_gh += sums.gh;
    });
    const double cols = static_cast<double>(x_.cols);
    const GradientSums means{kind_ == NormKind::kLayerNorm ? static_cast<float>(sum_g / cols) : 0,
                             static_cast<float>(sum_gh / cols)};
    ForEachSpan(x_.cols, [&](int64_t col, int64_t n) {
      const NormSpan span = SpanAt(row, col, n, &buffers);
      const float* dys = simd_.Read(dy_, row, col, n, buffers.dy);
      const float* around =
          residual_ == nullptr ? nullptr : simd_.Read(*residual_, row, col, n, buffers.residual);
      float* to = SpanTarget(dx_, row, col, buffers.dx);
      simd_.norm_gradient(span, dys, means, around, to);
      simd_.Store(dx_, row, col, n, to);
    });
  }

 private:
  struct Buffers {
    SpanBuffer x, weight, dy, residual, dx;
  };

  NormSpan SpanAt(int64_t row, int64_t col, int64_t n, Buffers* buffers) const {
    return {n, simd_.Read(x_, row, col, n, buffers->x), simd_.Read(weight_, 0, col, n, buffers->weight),
            stats_[2 * row], stats_[2 * row + 1]};
  }

  const RowSimd& simd_;
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
  ParallelRows(pool, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    SpanBuffer x_buffer, weight_buffer, bias_buffer, y_buffer;
    for (int64_t row = begin; row < end; ++row) {
      const RowStats of_row = StatsOfRow(simd, kind, x, row, eps);
      stats[2 * row] = of_row.mean;
      stats[2 * row + 1] = of_row.inverse_deviation;
      ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
        const NormSpan span{n, simd.Read(x, row, col, n, x_buffer),
                            simd.Read(weight, 0, col, n, weight_buffer), of_row.mean,
                            of_row.inverse_deviation};
        float* to = SpanTarget(y, row, col, y_buffer);
        simd.normalise(span, bias == nullptr ? nullptr : simd.Read(*bias, 0, col, n, bias_buffer), to);
        simd.Store(y, row, col, n, to);
      });
    }
  });
}

absl::Status NormBackward(const RowSimd& simd, const CpuContext& cpu, NormKind kind, const Matrix& x,
                          const Matrix& weight, const float* stats, const Matrix& dy, const Matrix* residual,
                          const Matrix& dx, float* dweight, float* dbias) {
  const Gradient gradient(simd, kind, x, weight, stats, dy, residual, dx);
  const int64_t cols = x.cols;
  return SumOverRows(
      cpu, x.rows, dbias == nullptr ? cols : 2 * cols,
      [&](int64_t row, float* sums) { gradient.Row(row, sums, dbias == nullptr ? nullptr : sums + cols); },
      [&](int64_t col, double total) {
        float& sum = col < cols ? dweight[col] : dbias[col - cols];
        sum = static_cast<float>(sum + total);
      });
}

}  // namespace seqpar::cpu
