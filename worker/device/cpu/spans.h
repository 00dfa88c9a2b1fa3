// Rows of float32 or bfloat16 matrices, read and written as float32 in pieces that stay in the first level
// cache.
#ifndef SEQPAR_WORKER_DEVICE_CPU_SPANS_H_
#define SEQPAR_WORKER_DEVICE_CPU_SPANS_H_

#include <algorithm>
#include <cstdint>

#include "common/device/device.h"

namespace seqpar {

inline constexpr int64_t kSpan = 512;  // floats
using SpanBuffer = float[kSpan];

// Calls fn(begin, count) for the pieces of [0, cols).
template <typename Fn>
void ForEachSpan(int64_t cols, const Fn& fn) {
  for (int64_t begin = 0; begin < cols; begin += kSpan) fn(begin, std::min(kSpan, cols - begin));
}

inline void WidenBF16(const BF16* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = ToFloat(from[i]);
}
inline void NarrowBF16(const float* from, BF16* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = ToBF16(from[i]);
}

// m[row, col .. col + n) as float32: the matrix itself, or converted into `buffer`. n <= kSpan.
inline const float* ReadSpan(const Matrix& m, int64_t row, int64_t col, int64_t n, float* buffer) {
  const char* data = m.At(row, col);
  if (m.dtype == DType::kF32) return reinterpret_cast<const float*>(data);
  WidenBF16(reinterpret_cast<const BF16*>(data), buffer, n);
  return buffer;
}

// Where to write m[row, col ..): the matrix itself, or `buffer`, which StoreSpan then converts.
inline float* SpanTarget(const Matrix& m, int64_t row, int64_t col, float* buffer) {
  return m.dtype == DType::kF32 ? reinterpret_cast<float*>(m.At(row, col)) : buffer;
}
inline void StoreSpan(const Matrix& m, int64_t row, int64_t col, int64_t n, const float* values) {
  if (m.dtype == DType::kBF16) NarrowBF16(values, reinterpret_cast<BF16*>(m.At(row, col)), n);
}

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CPU_SPANS_H_
