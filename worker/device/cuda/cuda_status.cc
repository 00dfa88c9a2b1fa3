#include "worker/device/cuda/cuda_status.h"

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace seqpar::cuda {

absl::Status ToStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return MakeError(absl::StatusCode::kResourceExhausted, reason::kOutOfMemory, text);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorDevicesUnavailable:
      return MakeError(absl::StatusCode::kUnavailable, reason::kInternal, text);
    default:
      return MakeError(absl::StatusCode::kInternal, reason::kInternal, text);
  }
}

}  // namespace seqpar::cuda
