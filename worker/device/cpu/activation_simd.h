// Activation functions and their slopes on rows of float32 or bfloat16 (computed in float32), one set for
// each vector instruction set that the build has.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_SIMD_H_
#define SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_SIMD_H_

#include <cstdint>
#include <string>

#include "common/tensor/dtype.h"

namespace seqpar::cpu {

// One activation f, within a few units in the last place of the larger of the result and 1e-1. No alignment
// is asked for. Element i of the operands is read before element i of a result is written: a result may be
// the memory of an operand.
template <typename T>
struct ActivationOn {
  // y[i] = f(x[i]) * up[i] for i in [0, n), or f(x[i]) where up is null.
  void (*forward)(const T* x, const T* up, int64_t n, T* y);
  // dx[i] = dy[i] up[i] f'(x[i]) and dup[i] = dy[i] f(x[i]); where up is null dx[i] = dy[i] f'(x[i]) and
  // nothing is written to dup.
  void (*backward)(const T* x, const T* up, const T* dy, int64_t n, T* dx, T* dup);
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
