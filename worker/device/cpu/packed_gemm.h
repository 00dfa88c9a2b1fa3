// Matrix products on packed panels: the fast kernel.
#ifndef SEQPAR_WORKER_DEVICE_CPU_PACKED_GEMM_H_
#define SEQPAR_WORKER_DEVICE_CPU_PACKED_GEMM_H_

#include "absl/status/status.h"
#include "common/device/device.h"
#include "worker/device/cpu/gemm_simd.h"
#include "worker/device/cpu/scratch.h"

namespace seqpar::cpu {

// As Device::Gemm; shapes checked by the caller. Each element is summed in an order that depends on the depth
// and on `simd` alone: it is the same bits whatever the number of threads and whichever other rows and
// columns are computed. RESOURCE_EXHAUSTED where the packed operand would exceed the device's limit.
//
// b is packed a slab of columns (and, where c is float32, of depth) at a time by all threads; then each task
// packs a block of rows of a and multiplies it with the whole slab, one panel after the other, so that a
// panel stays in the first level cache while the block passes by.
absl::Status PackedGemm(const GemmSimd& simd, const CpuContext& cpu, const Matrix& a, bool transpose_a,
                        const Matrix& b, bool transpose_b, const Matrix& c, bool accumulate,
                        const Matrix* bias);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_PACKED_GEMM_H_
