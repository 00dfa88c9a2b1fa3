#include "worker/device/cpu/elementwise.h"

#include <algorithm>
#include <cstring>

#include "worker/device/cpu/sum_over_rows.h"

namespace seqpar::cpu {

void CopyRows(const RowSimd& simd, ThreadPool& pool, const Matrix& from, const Matrix& to) {
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
        simd.widen(reinterpret_cast<const BF16*>(from.At(row, 0)), from.cols,
                   reinterpret_cast<float*>(to.At(row, 0)));
      } else {
        simd.narrow(reinterpret_cast<const float*>(from.At(row, 0)), from.cols,
                    reinterpret_cast<BF16*>(to.At(row, 0)));
      }
    }
  });
}

namespace {

bool AreBF16(const std::vector<Matrix>& matrices) {
  return std::all_of(matrices.begin(), matrices.end(),
                     [](const Matrix& m) { return m.dtype == DType::kBF16; });
}

const BF16* RowOfBF16(const Matrix& m, int64_t row) { return reinterpret_cast<const BF16*>(m.At(row, 0)); }

}  // namespace

void SumInOrder(const RowSimd& simd, ThreadPool& pool, const std::vector<Matrix>& terms, const Matrix& to) {
  if (terms.size() == 1) {
    if (terms[0].data != to.data) CopyRows(simd, pool, terms[0], to);
    return;
  }
  if (terms.size() == 2 && to.dtype == DType::kBF16 && AreBF16(terms)) {
    ParallelRows(pool, to.rows, to.cols * 2, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        simd.add_bf16(RowOfBF16(terms[0], row), RowOfBF16(terms[1], row), to.cols,
                      reinterpret_cast<BF16*>(to.At(row, 0)));
      }
    });
    return;
  }
  ParallelRows(pool, to.rows, to.cols * static_cast<int64_t>(terms.size()), [&](int64_t begin, int64_t end) {
    SpanBuffer sum, buffer, first_buffer;
    for (int64_t row = begin; row < end; ++row) {
      ForEachSpan(to.cols, [&](int64_t col, int64_t n) {
        // Into `to` with the last term only: it may be the memory of any.
        const float* so_far = simd.Read(terms[0], row, col, n, first_buffer);
        for (size_t t = 1; t < terms.size(); ++t) {
          const bool last = t + 1 == terms.size();
          float* target = last ? SpanTarget(to, row, col, sum) : sum;
          simd.add(so_far, simd.Read(terms[t], row, col, n, buffer), n, target);
          so_far = target;
        }
        simd.Store(to, row, col, n, so_far);
      });
    }
  });
}

absl::Status AddColumnSums(const RowSimd& simd, const CpuContext& cpu, const Matrix& x, float* sums) {
  return SumOverRows(
      cpu, x.rows, x.cols,
      [&](int64_t begin, int64_t end, float* partial) {
        SpanBuffer buffer;
        for (int64_t row = begin; row < end; ++row) {
          ForEachSpan(x.cols, [&](int64_t col, int64_t n) {
            simd.add(partial + col, simd.Read(x, row, col, n, buffer), n, partial + col);
          });
        }
      },
      [&](int64_t col, double total) { sums[col] = static_cast<float>(sums[col] + total); });
}

}  // namespace seqpar::cpu
