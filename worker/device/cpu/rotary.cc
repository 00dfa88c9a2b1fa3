#include "worker/device/cpu/rotary.h"

#include "worker/device/cpu/elementwise.h"

namespace seqpar::cpu {

void Rotary(const RowSimd& simd, ThreadPool& pool, const Matrix& x, int64_t batch, int head_dim,
            const float* table, bool inverse) {
  const int64_t half = head_dim / 2, heads = x.cols / head_dim;
  const float direction = inverse ? -1.0f : 1.0f;
  ParallelRows(pool, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* cosines = table + row / batch * head_dim;
      const float* sines = cosines + half;
      if (x.dtype == DType::kF32) {
        simd.rotate(reinterpret_cast<float*>(x.At(row, 0)), heads, half, cosines, sines, direction);
      } else {
        simd.rotate_bf16(reinterpret_cast<BF16*>(x.At(row, 0)), heads, half, cosines, sines, direction);
      }
    }
  });
}

}  // namespace seqpar::cpu
