#include "worker/device/cpu/elementwise.h"

#include <cstring>

#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {
namespace {

// Columns that one task of a sum over rows takes, and rows summed in float32 before their sum goes on in
// float64.
constexpr int64_t kColumnsPerTask = 64;
constexpr int64_t kRowsPerBlock = 64;

}  // namespace

void CopyRows(ThreadPool& pool, const Matrix& from, const Matrix& to) {
  if (from.dtype == to.dtype) {
    const size_t row_bytes = from.cols * SizeOf(from.dtype);
    ParallelRows(pool, from.rows, from.cols, [&](int64_t begin, int64_t end) {
      if (from.contiguous() && to.contiguous()) {
        std::memcpy(to.At(begin, 0), from.At(begin, 0), (end - begin) * row_bytes);
        return;
      }
      for (int64_t row = begin; row < end; ++row) std::memcpy(to.At(row, 0), from.At(row, 0), row_bytes);
    });
    return;
  }
  ParallelRows(pool, from.rows, from.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (from.dtype == DType::kBF16) {
        WidenBF16(reinterpret_cast<const BF16*>(from.At(row, 0)), reinterpret_cast<float*>(to.At(row, 0)),
                  from.cols);
      } else {
        NarrowBF16(reinterpret_cast<const float*>(from.At(row, 0)), reinterpret_cast<BF16*>(to.At(row, 0)),
                   from.cols);
      }
    }
  });
}

void SumInOrder(ThreadPool& pool, const std::vector<Matrix>& terms, const Matrix& to) {
  ParallelRows(pool, to.rows, to.cols * static_cast<int64_t>(terms.size()), [&](int64_t begin, int64_t end) {
    SpanBuffer sum, buffer;
    for (int64_t row = begin; row < end; ++row) {
      ForEachSpan(to.cols, [&](int64_t col, int64_t n) {
        // Summed apart from `to`, which may be a term that is still to come.
        const float* first = ReadSpan(terms[0], row, col, n, buffer);
        std::copy(first, first + n, sum);
        for (size_t t = 1; t < terms.size(); ++t) {
          const float* term = ReadSpan(terms[t], row, col, n, buffer);
          for (int64_t i = 0; i < n; ++i) sum[i] += term[i];
        }
        if (to.dtype == DType::kF32) {
          std::copy(sum, sum + n, reinterpret_cast<float*>(to.At(row, col)));
        } else {
          StoreSpan(to, row, col, n, sum);
        }
      });
    }
  });
}

void AddColumnSums(ThreadPool& pool, const Matrix& x, float* sums) {
  const int64_t tasks = (x.cols + kColumnsPerTask - 1) / kColumnsPerTask;
  pool.ParallelFor(tasks, [&](int64_t task, int) {
    const int64_t col = task * kColumnsPerTask;
    const int64_t n = std::min(kColumnsPerTask, x.cols - col);
    double total[kColumnsPerTask] = {};
    float buffer[kColumnsPerTask];
    for (int64_t block = 0; block < x.rows; block += kRowsPerBlock) {
      float sum[kColumnsPerTask] = {};
      const int64_t end = std::min(block + kRowsPerBlock, x.rows);
      for (int64_t row = block; row < end; ++row) {
        const float* values = ReadSpan(x, row, col, n, buffer);
        for (int64_t i = 0; i < n; ++i) sum[i] += values[i];
      }
      for (int64_t i = 0; i < n; ++i) total[i] += sum[i];
    }
    for (int64_t i = 0; i < n; ++i) sums[col + i] = static_cast<float>(sums[col + i] + total[i]);
  });
}

}  // namespace seqpar::cpu
