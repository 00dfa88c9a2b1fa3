// Arithmetic on stretches of rows, one set for each vector instruction set that the build has.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ROW_SIMD_H_
#define SEQPAR_WORKER_DEVICE_CPU_ROW_SIMD_H_

#include <cstdint>
#include <string>

#include "common/device/device.h"
#include "common/tensor/dtype.h"
#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {

// A matrix's numbers: `ld` from one row to the next. Null where an operand is absent.
template <typename T>
struct RowsOf {
  T* data;
  int64_t ld;
};

// Stretches of rows in a norm: h = (x - mean) / deviation, g = dy * weight.
template <typename T>
struct NormRows {
  int64_t rows, n;
  RowsOf<const T> x;
  const T* weight;
  const float* stats;  // of each row its mean and 1 / deviation
};

// Of a stretch the sums of x - center and of its square.
struct Moments {
  float center, sum, squares;
};

struct GradientSums {
  double g, gh;
};

// Norms of rows of float32 or bfloat16, computed in float32.
template <typename T>
struct NormOn {
  Moments (*moments)(const T* x, int64_t n);
  float (*sum_of_squares)(const T* x, int64_t n);

  // to = h * weight + bias (null: none).
  void (*normalise)(const NormRows<T>& rows, const T* bias, RowsOf<T> to);
  // Adds dy h to weight_sums and dy to bias_sums (null: not wanted), in an order of columns that order_sums
  // turns into that of memory, and each row's sums of g and of g h to its sums.
  void (*add_gradients)(const NormRows<T>& rows, RowsOf<const T> dy, float* weight_sums, float* bias_sums,
                        GradientSums* sums);
  void (*order_sums)(float* sums, int64_t n);  // in place; n as it was when they were added to
  // to = (g - means.g - h * means.gh) / deviation + around (null: none), means for each row.
  void (*gradient)(const NormRows<T>& rows, RowsOf<const T> dy, const GradientSums* means,
                   RowsOf<const T> around, RowsOf<T> to);
};

// Every function is for n numbers that no alignment is asked of, and reads element i of its operands before
// it writes element i: a result may be the memory of an operand.
struct RowSimd {
  void (*widen)(const BF16* from, int64_t n, float* to);
  void (*narrow)(const float* from, int64_t n, BF16* to);  // as ToBF16
  void (*add)(const float* a, const float* b, int64_t n, float* to);
  void (*add_bf16)(const BF16* a, const BF16* b, int64_t n, BF16* to);  // in float32, rounded once

  NormOn<float> norm;
  NormOn<BF16> norm_bf16;

  // Of each of `heads` heads of 2 * half numbers, in place: low = low cosine - high sine, high = high cosine
  // + low sine; sines times `direction`.
  void (*rotate)(float* row, int64_t heads, int64_t half, const float* cosines, const float* sines,
                 float direction);
  void (*rotate_bf16)(BF16* row, int64_t heads, int64_t half, const float* cosines, const float* sines,
                      float direction);

  // As ReadSpan and StoreSpan of spans.h.
  const float* Read(const Matrix& m, int64_t row, int64_t col, int64_t n, float* buffer) const {
    if (m.dtype == DType::kF32) return reinterpret_cast<const float*>(m.At(row, col));
    widen(reinterpret_cast<const BF16*>(m.At(row, col)), n, buffer);
    return buffer;
  }
  void Store(const Matrix& m, int64_t row, int64_t col, int64_t n, const float* values) const {
    if (m.dtype == DType::kBF16) narrow(values, n, reinterpret_cast<BF16*>(m.At(row, col)));
  }
};

// By the name of the instruction set; what every processor can run where there is none of it.
const RowSimd& FindRowSimd(const std::string& name);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ROW_SIMD_H_
