// Attention tiles on tensor cores, by the kernels of fa4_kernels.h: a launch for each run of queries whose
// mask one of them has, and for the heads that one launch takes. An architecture that has no causal kernel
// takes its window for it; one whose kernels merge nothing has its partial results merged outside.
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
// Backward computes in `scratch`: up to kCudaAttentionBytes, more where one head needs more. What forward has
// merged outside it computes there in parts of up to kCudaAttentionLeastBytes.
class Fa4Attention {
 public:
  // capability: the device's, 90 is 9.0.
  Fa4Attention(int capability, bool fixed_order, Scratch* scratch)
      : capability_(capability), fixed_order_(fixed_order), scratch_(scratch) {}

  // Whether this build has kernels for the device and the operands suit them: what must go elsewhere
  // otherwise.
  bool Serves(const AttentionTile& tile, const std::vector<Matrix>& others) const;

  // Whether `out` and dq may be bfloat16 where they are asked for as such, rounded once: of a tile that is
  // all there is of its queries' attention. Then dq is written, not added to.
  bool Rounds(int head_dim) const;
  // Whether dk and dv may be, too, of such a tile that is also all there is of its keys' gradients.
  bool RoundsKeys(const AttentionTile& tile, const std::vector<QueryRun>& runs) const;

  // `runs`: the tile's (run_cache.h).
  absl::Status Forward(cudaStream_t stream, const AttentionTile& tile, const std::vector<QueryRun>& runs,
                       const Matrix& out, const Matrix& lse, bool first);
  absl::Status Backward(cudaStream_t stream, const AttentionTile& tile, const std::vector<QueryRun>& runs,
                        const Matrix& dout, const Matrix& lse, const Matrix& delta, const Matrix& dq,
                        const Matrix& dk, const Matrix& dv);

 private:
  // Tiles of so many keys.
  static int64_t KeyTurns(int64_t keys);
  // Whether in fixed order one launch takes query heads that share KV heads.
  bool TakesTurns(const AttentionTile& tile) const;
  // The kernel that serves the run, which is put in that kernel's words.
  const Fa4Kernel* KernelOf(Fa4Kind kind, int head_dim, QueryRun* run) const;
  absl::Status MergeOutside(cudaStream_t stream, const AttentionTile& tile, const QueryRun& run,
                            const HeadGrid& grid, const Matrix& out, const Matrix& lse);
  absl::Status BackwardRun(cudaStream_t stream, const AttentionTile& tile, QueryRun run, const HeadGrid& grid,
                           const Matrix& dout, const Matrix& lse, const Matrix& delta, const Matrix& dq,
                           const Matrix& dk, const Matrix& dv);

  const int capability_;
  const bool fixed_order_;
  Scratch* const scratch_;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_FA4_ATTENTION_H_
