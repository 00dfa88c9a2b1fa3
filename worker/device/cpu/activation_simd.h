// Activation functions and their slopes on rows of float32 or bfloat16 (computed in float32), one set for
// each vector instruction set that the build has.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_SIMD_H_
#define SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_SIMD_H_

#include <cstdint>
#include <string>

#include "common/tensor/dtype.h"
#include "worker/device/cpu/row_simd.h"

namespace seqpar::cpu {

// One activation f, within a few units in the last place of the larger of the result and 1e-1; of bfloat16
// numbers within a few 1e-4 of the larger of the two, and then rounded, by up to 2e-3 of the result. No
// alignment is asked for. Each element of the operands is read before the same element of a result is
// written: a result may be the memory of an operand.
template <typename T>
struct ActivationOn {
  // y = f(x) * up, or f(x) where up is null.
  void (*forward)(RowsOf<const T> x, RowsOf<const T> up, int64_t rows, int64_t cols, RowsOf<T> y);
  // dx = dy up f'(x) and dup = dy f(x); where up is null dx = dy f'(x) and nothing is written to dup. y as
  // forward gives it, where it is not null.
  void (*backward)(RowsOf<const T> x, RowsOf<const T> up, RowsOf<const T> dy, int64_t rows, int64_t cols,
                   RowsOf<T> dx, RowsOf<T> dup, RowsOf<T> y);
};

struct ActivationFunction {
  ActivationOn<float> f32;
  ActivationOn<BF16> bf16;
};

struct ActivationSimd {
  ActivationFunction gelu, gelu_tanh, silu;
};

// By the name of the instruction set; nullptr where there is none of it.
const ActivationSimd* FindActivationSimd(const std::string& name);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_SIMD_H_
