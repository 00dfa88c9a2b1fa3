// CUDA's codes as Status.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDA_STATUS_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"

namespace seqpar::cuda {

// RESOURCE_EXHAUSTED (OUT_OF_MEMORY) where memory ran out; UNAVAILABLE where there is no driver, too old a
// one, or no device; INTERNAL otherwise. The message says what was done, CUDA's name of the error and its
// text.
absl::Status ToStatus(cudaError_t error, const char* what);

}  // namespace seqpar::cuda

// Returns from the enclosing function where the call fails.
#define SEQPAR_CUDA_RETURN_IF_ERROR(call, what) \
  SEQPAR_RETURN_IF_ERROR(::seqpar::cuda::ToStatus((call), (what)))

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDA_STATUS_H_
