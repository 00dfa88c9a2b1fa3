#include "worker/device/cpu/rotary.h"

#include "worker/device/cpu/elementwise.h"

namespace seqpar::cpu {

void Rotary(const RowSimd& simd, ThreadPool& pool, const Matrix& x, int64_t batch, int head_dim,
            const float* table, bool inverse) {
  const int64_t half = head_dim / 2;
  const float direction = inverse ? -1.0f : 1.0f;
  ParallelRows(pool, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    SpanBuffer low_buffer, high_buffer;
    for (int64_t row = begin; row < end; ++row) {
      const float* cosines = table + row / batch * head_dim;
      const float* sines = cosines + half;
      for (int64_t head = 0; head < x.cols; head += head_dim) {
        ForEachSpan(half, [&](int64_t at, int64_t n) {
          const float* low = simd.Read(x, row, head + at, n, low_buffer);
          const float* high = simd.Read(x, row, head + half + at, n, high_buffer);
          float* new_low = SpanTarget(x, row, head + at, low_buffer);
          float* new_high = SpanTarget(x, row, head + half + at, high_buffer);
          simd.rotate(low, high, cosines + at, sines + at, direction, n, new_low, new_high);
          simd.Store(x, row, head + at, n, new_low);
          simd.Store(x, row, head + half + at, n, new_high);
        });
      }
    }
  });
}

}  // namespace seqpar::cpu
