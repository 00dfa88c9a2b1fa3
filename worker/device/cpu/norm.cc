#include "worker/device/cpu/norm.h"

#include <cmath>

#include "worker/device/cpu/elementwise.h"
#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {
namespace {

constexpr int64_t kColumnsPerTask = 64;
constexpr int64_t kRowsPerBlock = 64;
// Partial sums that run side by side: fixed, so that the order of additions is, and wide enough to vectorise.
constexpr int kLanes = 16;

// Sum of term(i) for i in [0, n).
template <typename Term>
double SumOf(int64_t n, const Term& term) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (int lane = 0; i < n; ++i, ++lane) lanes[lane] += term(i);
  double sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

struct RowStats {
  float mean;
  float inverse_deviation;
};

RowStats StatsOfRow(NormKind kind, const Matrix& x, int64_t row, float eps) {
  SpanBuffer buffer;
  double mean = 0;
  if (kind == NormKind::kLayerNorm) {
    ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
      const float* values = ReadSpan(x, row, col, n, buffer);
      mean += SumOf(n, [&](int64_t i) { return values[i]; });
    });
    mean /= x.cols;
  }
  const float center = static_cast<float>(mean);
  double square = 0;
  ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
    const float* values = ReadSpan(x, row, col, n, buffer);
    square += SumOf(n, [&](int64_t i) { return (values[i] - center) * (values[i] - center); });
  });
  return {center, static_cast<float>(1 / std::sqrt(square / x.cols + eps))};
}

// dweight[c] += sum over rows of dy * normalised x, dbias[c] += sum of dy.
void AddWeightGradients(ThreadPool& pool, const Matrix& x, const float* stats, const Matrix& dy,
                        float* dweight, float* dbias) {
  const int64_t tasks = (x.cols + kColumnsPerTask - 1) / kColumnsPerTask;
  pool.ParallelFor(tasks, [&](int64_t task, int) {
    const int64_t col = task * kColumnsPerTask;
    const int64_t n = std::min(kColumnsPerTask, x.cols - col);
    double weight_total[kColumnsPerTask] = {}, bias_total[kColumnsPerTask] = {};
    float x_buffer[kColumnsPerTask], dy_buffer[kColumnsPerTask];
    for (int64_t block = 0; block < x.rows; block += kRowsPerBlock) {
      float weight_sum[kColumnsPerTask] = {}, bias_sum[kColumnsPerTask] = {};
      const int64_t end = std::min(block + kRowsPerBlock, x.rows);
      for (int64_t row = block; row < end; ++row) {
        const float mean = stats[2 * row], inverse_deviation = stats[2 * row + 1];
        const float* xs = ReadSpan(x, row, col, n, x_buffer);
        const float* dys = ReadSpan(dy, row, col, n, dy_buffer);
        for (int64_t i = 0; i < n; ++i) {
          weight_sum[i] += dys[i] * ((xs[i] - mean) * inverse_deviation);
          bias_sum[i] += dys[i];
        }
      }
      for (int64_t i = 0; i < n; ++i) weight_total[i] += weight_sum[i];
      for (int64_t i = 0; i < n; ++i) bias_total[i] += bias_sum[i];
    }
    for (int64_t i = 0; i < n; ++i) dweight[col + i] = static_cast<float>(dweight[col + i] + weight_total[i]);
    if (dbias == nullptr) return;
    for (int64_t i = 0; i < n; ++i) dbias[col + i] = static_cast<float>(dbias[col + i] + bias_total[i]);
  });
}

// With g = dy * weight and h = normalised x: dx = inverse_deviation * (g - mean(g) - h * mean(g h)); the
// first mean is LayerNorm's alone.
void InputGradientOfRow(NormKind kind, const Matrix& x, const Matrix& weight, RowStats stats,
                        const Matrix& dy, const Matrix* residual, const Matrix& dx, int64_t row) {
  SpanBuffer x_buffer, weight_buffer, dy_buffer, residual_buffer, dx_buffer;
  double sum_g = 0, sum_gh = 0;
  ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
    const float* xs = ReadSpan(x, row, col, n, x_buffer);
    const float* w = ReadSpan(weight, 0, col, n, weight_buffer);
    const float* dys = ReadSpan(dy, row, col, n, dy_buffer);
    if (kind == NormKind::kLayerNorm) sum_g += SumOf(n, [&](int64_t i) { return dys[i] * w[i]; });
    sum_gh +=
        SumOf(n, [&](int64_t i) { return dys[i] * w[i] * ((xs[i] - stats.mean) * stats.inverse_deviation); });
  });
  const float mean_g = static_cast<float>(sum_g / x.cols), mean_gh = static_cast<float>(sum_gh / x.cols);
  ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
    const float* xs = ReadSpan(x, row, col, n, x_buffer);
    const float* w = ReadSpan(weight, 0, col, n, weight_buffer);
    const float* dys = ReadSpan(dy, row, col, n, dy_buffer);
    const float* around = residual == nullptr ? nullptr : ReadSpan(*residual, row, col, n, residual_buffer);
    float* to = SpanTarget(dx, row, col, dx_buffer);
    for (int64_t i = 0; i < n; ++i) {
      const float h = (xs[i] - stats.mean) * stats.inverse_deviation;
      const float gradient = stats.inverse_deviation * (dys[i] * w[i] - mean_g - h * mean_gh);
      to[i] = around == nullptr ? gradient : around[i] + gradient;
    }
    StoreSpan(dx, row, col, n, to);
  });
}

}  // namespace

void NormForward(ThreadPool& pool, NormKind kind, const Matrix& x, const Matrix& weight, const Matrix* bias,
                 float eps, const Matrix& y, float* stats) {
  ParallelRows(pool, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    SpanBuffer x_buffer, weight_buffer, bias_buffer, y_buffer;
    for (int64_t row = begin; row < end; ++row) {
      const RowStats of_row = StatsOfRow(kind, x, row, eps);
      stats[2 * row] = of_row.mean;
      stats[2 * row + 1] = of_row.inverse_deviation;
      ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
        const float* xs = ReadSpan(x, row, col, n, x_buffer);
        const float* w = ReadSpan(weight, 0, col, n, weight_buffer);
        const float* b = bias == nullptr ? nullptr : ReadSpan(*bias, 0, col, n, bias_buffer);
        float* to = SpanTarget(y, row, col, y_buffer);
        for (int64_t i = 0; i < n; ++i) {
          const float scaled = (xs[i] - of_row.mean) * of_row.inverse_deviation * w[i];
          to[i] = b == nullptr ? scaled : scaled + b[i];
        }
        StoreSpan(y, row, col, n, to);
      });
    }
  });
}

void NormBackward(ThreadPool& pool, NormKind kind, const Matrix& x, const Matrix& weight, const float* stats,
                  const Matrix& dy, const Matrix* residual, const Matrix& dx, float* dweight, float* dbias) {
  AddWeightGradients(pool, x, stats, dy, dweight, dbias);  // first: dx may overwrite what this reads
  ParallelRows(pool, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      InputGradientOfRow(kind, x, weight, {stats[2 * row], stats[2 * row + 1]}, dy, residual, dx, row);
    }
  });
}

}  // namespace seqpar::cpu
