// CPU slots over UCX.
#ifndef SEQPAR_WORKER_BACKEND_CPU_UCX_H_
#define SEQPAR_WORKER_BACKEND_CPU_UCX_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/backend/backend.h"

namespace seqpar {

absl::StatusOr<std::unique_ptr<RankBackend>> MakeCpuUcxBackend(const BackendConfig& config);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_BACKEND_CPU_UCX_H_
