// Matrix products by OpenBLAS, one thread a block of the result.
#ifndef SEQPAR_WORKER_DEVICE_CPU_LIBRARY_GEMM_H_
#define SEQPAR_WORKER_DEVICE_CPU_LIBRARY_GEMM_H_

#include "absl/status/status.h"
#include "common/device/device.h"
#include "worker/device/cpu/scratch.h"

namespace seqpar::cpu {

// As Device::Gemm; shapes checked by the caller. The blocks depend on the shape alone, so the result is the
// same bits whatever the number of threads. RESOURCE_EXHAUSTED where bfloat16 operands need scratch that the
// limit forbids.
absl::Status LibraryGemm(const CpuContext& cpu, const Matrix& a, bool transpose_a, const Matrix& b,
                         bool transpose_b, const Matrix& c, bool accumulate, const Matrix* bias);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_LIBRARY_GEMM_H_
