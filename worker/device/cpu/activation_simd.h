// Activation functions and their slopes on rows of float32, one set for each vector instruction set that the
// build has.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_SIMD_H_
#define SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_SIMD_H_

#include <cstdint>
#include <string>

namespace seqpar::cpu {

// value[i] = f(x[i]) and, where slope is not null, slope[i] = f'(x[i]) for i in [0, n); x may be value or
// slope. Within a few units in
// the last place of the larger of the result and 1e-1. No alignment is asked for.
using ActivationFunction = void (*)(const float* x, int64_t n, float* value, float* slope);

struct ActivationSimd {
  ActivationFunction gelu, gelu_tanh, silu;
};

// By the name of the instruction set; nullptr where there is none of it.
const ActivationSimd* FindActivationSimd(const std::string& name);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_SIMD_H_
