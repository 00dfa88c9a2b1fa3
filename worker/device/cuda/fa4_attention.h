// Attention tiles on tensor cores, by the kernels of fa4_kernels.h: a launch for each run of queries whose
// mask one of them has, and for the heads that one launch takes.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_FA4_ATTENTION_H_
#define SEQPAR_WORKER_DEVICE_CUDA_FA4_ATTENTION_H_

#include <cuda_runtime_api.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "worker/device/cuda/fa4_kernels.h"
#include "worker/device/cuda/head_grid.h"
#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/mask_runs.h"
#include "worker/device/cuda/scratch.h"

namespace seqpar::cuda {

// Of one device; used from the thread that enqueues. Operands and what happens to them: Device's
// AttentionForward and AttentionBackward. Results of forward have the same bits from run to run; those of
// backward where `fixed_order`, else a query's and a key's sums are added up in whatever order they come.
//
// Backward computes in `scratch`: up to kCudaAttentionBytes, more where one head needs more.
class Fa4Attention {
 public:
  Fa4Attention(bool fixed_order, Scratch* scratch) : fixed_order_(fixed_order), scratch_(scratch) {}

  // Whether this build has the kernels and the operands suit them: what must go elsewhere otherwise.
  static bool Serves(const AttentionTile& tile, const std::vector<Matrix>& others);

  // `runs`: the tile's (run_cache.h).
  absl::Status Forward(cudaStream_t stream, const AttentionTile& tile, const std::vector<QueryRun>& runs,
                       const Matrix& out, const Matrix& lse, bool first);
  absl::Status Backward(cudaStream_t stream, const AttentionTile& tile, const std::vector<QueryRun>& runs,
                        const Matrix& dout, const Matrix& lse, const Matrix& delta, const Matrix& dq,
                        const Matrix& dk, const Matrix& dv);

 private:
  absl::Status BackwardRun(cudaStream_t stream, const AttentionTile& tile, const QueryRun& run,
                           const HeadGrid& grid, const Matrix& dout, const Matrix& lse, const Matrix& delta,
                           const Matrix& dq, const Matrix& dk, const Matrix& dv);

  const bool fixed_order_;
  Scratch* const scratch_;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_FA4_ATTENTION_H_
