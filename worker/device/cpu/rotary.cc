#include "worker/device/cpu/rotary.h"

#include "worker/device/cpu/elementwise.h"
#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {

void Rotary(ThreadPool& pool, const Matrix& x, int64_t batch, int head_dim, const float* table,
            bool inverse) {
  const int64_t half = head_dim / 2;
  const float direction = inverse ? -1.0f : 1.0f;
  ParallelRows(pool, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    SpanBuffer low_buffer, high_buffer;
    for (int64_t row = begin; row < end; ++row) {
      const float* cosines = table + row / batch * head_dim;
      const float* sines = cosines + half;
      for (int64_t head = 0; head < x.cols; head += head_dim) {
        ForEachSpan(half, [&](int64_t at, int64_t n) {
          const float* low = ReadSpan(x, row, head + at, n, low_buffer);
          const float* high = ReadSpan(x, row, head + half + at, n, high_buffer);
          float* new_low = SpanTarget(x, row, head + at, low_buffer);
          float* new_high = SpanTarget(x, row, head + half + at, high_buffer);
          for (int64_t i = 0; i < n; ++i) {
            const float a = low[i], b = high[i];
            const float cosine = cosines[at + i], sine = direction * sines[at + i];
            new_low[i] = a * cosine - b * sine;
            new_high[i] = b * cosine + a * sine;
          }
          StoreSpan(x, row, head + at, n, new_low);
          StoreSpan(x, row, head + half + at, n, new_high);
        });
      }
    }
  });
}

}  // namespace seqpar::cpu
