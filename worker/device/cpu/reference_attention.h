// Attention as the definition reads, in float32: the reference that the fast kernel is judged beside.
#ifndef SEQPAR_WORKER_DEVICE_CPU_REFERENCE_ATTENTION_H_
#define SEQPAR_WORKER_DEVICE_CPU_REFERENCE_ATTENTION_H_

#include <memory>

#include "worker/device/cpu/attention_kernel.h"

namespace seqpar::cpu {

std::unique_ptr<AttentionKernel> MakeReferenceAttention();

}  // namespace seqpar::cpu

#endif  // SEQPAR_WORKER_DEVICE_CPU_REFERENCE_ATTENTION_H_
