// Matrices of common/device/device.h as the launchers of kernels.h take them.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_VIEW_H_
#define SEQPAR_WORKER_DEVICE_CUDA_VIEW_H_

#include "common/base/check.h"
#include "common/device/device.h"
#include "worker/device/cuda/kernels.h"

namespace seqpar::cuda {

inline View ViewOf(const Matrix& m) {
  SEQPAR_CHECK(m.dtype == DType::kF32 || m.dtype == DType::kBF16);
  return {m.data, m.dtype == DType::kF32 ? Type::kF32 : Type::kBF16, m.rows, m.cols, m.ld};
}

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_VIEW_H_
