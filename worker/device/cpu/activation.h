// The MLP's activations. Arguments as Device::ActivationForward and ActivationBackward; shapes checked by the
// caller.
#ifndef SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_H_
#define SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_H_

#include "common/device/device.h"
#include "worker/device/cpu/thread_pool.h"

namespace seqpar::cpu {

void ActivationForward(ThreadPool& pool, MlpKind kind, const Matrix* gate, const Matrix& up, const Matrix& y);
void ActivationBackward(ThreadPool& pool, MlpKind kind, const Matrix* gate, const Matrix& up,
                        const Matrix& dy, const Matrix* dgate, const Matrix& dup);

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_ACTIVATION_H_
