// The build without cudnn-frontend.
#include "common/base/status.h"
#include "worker/device/cuda/cudnn_graphs.h"

namespace seqpar::cuda {

absl::StatusOr<std::unique_ptr<CudnnGraphs>> CudnnGraphs::Create() {
  return MakeError(absl::StatusCode::kUnavailable, reason::kInternal, "this build has no cuDNN attention");
}

}  // namespace seqpar::cuda
