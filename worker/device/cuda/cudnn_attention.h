// Attention tiles by cuDNN's fused kernels: the calls of cudnn_plan.h and what stands around each.
//
// What takes the time of a first call: cuDNN bakes every length and stride into an execution plan, and to
// finalise one takes the host 60 to 90 ms; where its engine has no such kernel yet (by pass, head dimension,
// mask, type) it compiles one, 0.5 to 1.3 s, and keeps it for the process. Hence a plan is kept for each
// shape (made_shapes.h), and made ahead of the first step by PrepareForward and PrepareBackward.
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
#include "worker/device/cuda/cudnn_plan.h"
#include "worker/device/cuda/made_shapes.h"
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
  CudnnAttention(bool fixed_order, Scratch* scratch);

  // cudnn_plan.h. Nothing also where this build, machine or device has no cuDNN that serves the tile. `runs`:
  // the tile's. Graphs that are missing are made, in a tenth of a second each.
  std::optional<CudnnPlan> PlanForward(const AttentionTile& tile, const std::vector<QueryRun>& runs,
                                       const Matrix& out, bool first);
  std::optional<CudnnPlan> PlanBackward(const AttentionTile& tile, const std::vector<QueryRun>& runs,
                                        const Matrix& dout, const std::vector<Matrix>& gradients);
  // Makes the graphs that these would, ahead of them, up to the limits below in all. Whether there is one.
  // The matrices may have no data.
  bool PrepareForward(const AttentionTile& tile, const std::vector<QueryRun>& runs, const Matrix& out);
  bool PrepareBackward(const AttentionTile& tile, const std::vector<QueryRun>& runs, const Matrix& dout,
                       const std::vector<Matrix>& gradients);
  // A plan's tiles come to a handful of graphs, but for those of many documents: others wait for a rank that
  // starts, half a minute by default.
  static constexpr int64_t kMadeAheadMax = 64;
  static constexpr double kAheadSecondsMax = 10;

  // What was planned for the same operands just before, but for what is left.
  absl::Status Forward(cudaStream_t stream, const AttentionTile& tile, const std::vector<QueryRun>& runs,
                       const CudnnPlan& plan, const Matrix& out, const Matrix& lse, bool first);
  absl::Status Backward(cudaStream_t stream, const AttentionTile& tile, const CudnnPlan& plan,
                        const Matrix& dout, const Matrix& lse, const Matrix& delta, const Matrix& dq,
                        const Matrix& dk, const Matrix& dv);

  // Graphs made, and the answers that there is none. From any thread.
  void Count(AttentionUse* use) const;

 private:
  CudnnGraphs* Graphs();
  std::optional<CudnnPlan> Plan(CudnnPass pass, const AttentionTile& tile, const std::vector<QueryRun>& runs,
                                bool first, const Matrix* dout, bool ahead);
  CudnnPass backward_pass() const { return fixed_order_ ? CudnnPass::kBackwardFixed : CudnnPass::kBackward; }
  absl::StatusOr<char*> TakeFor(cudaStream_t stream, const CudnnLaunch& launch);

  const bool fixed_order_;
  Scratch* const scratch_;
  bool opened_ = false;
  std::unique_ptr<CudnnGraphs> graphs_;  // null where there is no cuDNN
  MadeShapes<CudnnShape, CudnnKernel> made_;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_ATTENTION_H_
