// LayerNorm and RMSNorm over rows, each one pass over memory. Arguments as Device::NormForward and
// NormBackward; shapes checked by the caller.
#ifndef SEQPAR_WORKER_DEVICE_CPU_NORM_H_
#define SEQPAR_WORKER_DEVICE_CPU_NORM_H_

#include "absl/status/status.h"
#include "common/device/device.h"
#include "worker/device/cpu/row_simd.h"
#include "worker/device/cpu/scratch.h"

namespace seqpar::cpu {

void NormForward(const RowSimd& simd, ThreadPool& pool, NormKind kind, const Matrix& x, const Matrix& weight,
                 const Matrix* bias, float eps, const Matrix& y, float* stats);

// dx may be the memory of dy, x or the residual. RESOURCE_EXHAUSTED as SumOverRows.
absl::Status NormBackward(const RowSimd& simd, const CpuContext& cpu, NormKind kind, const Matrix& x,
                          const Matrix& weight, const float* stats, const Matrix& dy, const Matrix* residual,
                          const Matrix& dx, float* dweight, float* dbias);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_NORM_H_
