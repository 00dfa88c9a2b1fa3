// The inner loop of matrix products, one for each vector instruction set that the build has.
#ifndef SEQPAR_WORKER_DEVICE_CPU_GEMM_SIMD_H_
#define SEQPAR_WORKER_DEVICE_CPU_GEMM_SIMD_H_

#include <cstdint>
#include <string>

#include "worker/device/cpu/simd.h"

namespace seqpar::cpu {

// c[row][col] = (or += where `add`) sum over `depth` of a[row] * b[col], for one panel of columns.
struct PanelProduct {
  const float* a;  // packed in groups of kGroup rows, depth * kGroup floats each; rows past `rows` are zero
  const float* b;  // [depth][panel]
  int depth;
  int64_t rows;
  int cols;  // of the panel, those that c has
  float* c;
  int64_t ldc;
  bool add;
};

struct GemmSimd {
  int panel;  // columns
  void (*multiply)(const PanelProduct&);
};

// By the name of the instruction set; nullptr where there is none of it.
const GemmSimd* FindGemmSimd(const std::string& name);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_GEMM_SIMD_H_
