// The MLP's activations. Arguments as Device::ActivationForward and ActivationBackward; shapes checked by the
// caller.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_H_
#define SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_H_

#include "common/device/device.h"
#include "worker/device/cpu/activation_simd.h"
#include "worker/device/cpu/row_simd.h"
#include "worker/device/cpu/thread_pool.h"

namespace seqpar::cpu {

// The same functions by the standard library, one number at a time.
const ActivationSimd& PlainActivations();

void ActivationForward(const ActivationSimd& functions, const RowSimd& simd, ThreadPool& pool, MlpKind kind,
                       const Matrix* gate, const Matrix& up, const Matrix& y);
void ActivationBackward(const ActivationSimd& functions, const RowSimd& simd, ThreadPool& pool, MlpKind kind,
                        const Matrix* gate, const Matrix& up, const Matrix& dy, const Matrix* dgate,
                        const Matrix& dup, const Matrix* y);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_H_
