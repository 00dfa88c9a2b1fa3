// Rotary position embedding. Arguments as Device::Rotary; shapes checked by the caller.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ROTARY_H_
#define SEQPAR_WORKER_DEVICE_CPU_ROTARY_H_

#include <cstdint>

#include "common/device/device.h"
#include "worker/device/cpu/row_simd.h"
#include "worker/device/cpu/thread_pool.h"

namespace seqpar::cpu {

void Rotary(const RowSimd& simd, ThreadPool& pool, const Matrix& x, int64_t batch, int head_dim,
            const float* table, bool inverse);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ROTARY_H_
