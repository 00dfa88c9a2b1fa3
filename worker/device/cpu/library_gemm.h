// Matrix products by oneDNN, one thread a block of the result.
#ifndef SEQPAR_WORKER_DEVICE_CPU_LIBRARY_GEMM_H_
#define SEQPAR_WORKER_DEVICE_CPU_LIBRARY_GEMM_H_

#include "absl/status/status.h"
#include "common/device/device.h"
#include "worker/device/cpu/scratch.h"

namespace seqpar::cpu {

// As Device::Gemm; shapes checked by the caller. The blocks depend on the shape alone, so the result is the
// same bits whatever the number of threads. bfloat16 is multiplied as it is where the processor can, and
// converted block by block where not; sums are float32. RESOURCE_EXHAUSTED where the limit forbids the
// scratch; INTERNAL where the library fails.
//
// The library compiles its kernels at run time, for the widest vectors that the processor has, and keeps
// them, by shape, for the life of the process.
absl::Status LibraryGemm(const CpuContext& cpu, const Matrix& a, bool transpose_a, const Matrix& b,
                         bool transpose_b, const Matrix& c, bool accumulate, const Matrix* bias);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_LIBRARY_GEMM_H_
