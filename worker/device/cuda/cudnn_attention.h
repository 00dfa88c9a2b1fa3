// Attention tiles by cuDNN's fused kernels: a call for each piece (cudnn_pieces.h) of each run of queries,
// and for as many heads as there is memory to compute in.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDNN_ATTENTION_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDNN_ATTENTION_H_

#include <cuda_runtime_api.h>

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "worker/device/cuda/cudnn_graphs.h"
#include "worker/device/cuda/cudnn_pieces.h"
#include "worker/device/cuda/head_grid.h"
#include "worker/device/cuda/mask_runs.h"
#include "worker/device/cuda/scratch.h"

namespace seqpar::cuda {

// Of one device, which is current; used from the thread that enqueues. Operands and what happens to them:
// Device's AttentionForward and AttentionBackward. cuDNN rounds what a call gives to bfloat16, once;
// merged and added up it is in float32, in one order. Results of forward, and of backward where
// `fixed_order`, have the same bits from run to run.
//
// Computes in `scratch`, by CudaAttentionBudget: what would take more is not served.
class CudnnAttention {
 public:
  CudnnAttention(bool fixed_order, Scratch* scratch) : fixed_order_(fixed_order), scratch_(scratch) {}

  // A call of the library.
  struct Launch {
    CudnnPiece piece;
    HeadGrid grid;
    std::shared_ptr<const CudnnGraph> graph;
    int64_t own_bytes = 0, workspace_bytes = 0;  // to compute in: ours, then the library's
    bool first = false;                          // forward: there is nothing yet to merge with
  };
  struct Plan {
    std::vector<Launch> launches;
    std::vector<QuerySpan> left;  // ascending: queries that are left to another kernel
  };

  // `runs`: the tile's (run_cache.h). Left are runs that are too small (cudnn_pieces.h), that cuDNN has no
  // kernel for, or whose shapes are too many to have a graph each. Nothing where that is all of them, or
  // where this build, machine or device has no cuDNN that serves the tile.
  std::optional<Plan> PlanForward(const AttentionTile& tile, const std::vector<QueryRun>& runs,
                                  const Matrix& out, bool first);
  std::optional<Plan> PlanBackward(const AttentionTile& tile, const std::vector<QueryRun>& runs,
                                   const Matrix& dout, const std::vector<Matrix>& gradients);

  // What was planned for the same operands just before, but for what is left.
  absl::Status Forward(cudaStream_t stream, const AttentionTile& tile, const std::vector<QueryRun>& runs,
                       const Plan& plan, const Matrix& out, const Matrix& lse, bool first);
  absl::Status Backward(cudaStream_t stream, const AttentionTile& tile, const Plan& plan, const Matrix& dout,
                        const Matrix& lse, const Matrix& delta, const Matrix& dq, const Matrix& dk,
                        const Matrix& dv);

 private:
  CudnnGraphs* Graphs();
  std::optional<Plan> PlanRuns(CudnnPass pass, const AttentionTile& tile, const std::vector<QueryRun>& runs,
                               bool first, const Matrix* dout);
  bool Add(CudnnPass pass, const AttentionTile& tile, const CudnnPiece& piece, const HeadGrid& grid,
           bool first, const Matrix* dout, int64_t budget, std::vector<Launch>* launches);
  absl::StatusOr<char*> TakeFor(cudaStream_t stream, const Launch& launch);

  const bool fixed_order_;
  Scratch* const scratch_;
  bool opened_ = false;
  std::unique_ptr<CudnnGraphs> graphs_;  // null where there is no cuDNN
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_ATTENTION_H_
