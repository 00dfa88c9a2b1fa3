// A GPU's attention: each tile by the kernel that attention_table.h names for it, and by our own what that
// one leaves.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDA_ATTENTION_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDA_ATTENTION_H_

#include <cuda_runtime_api.h>

#include <atomic>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/device/device.h"
#include "worker/device/cuda/attention_table.h"
#include "worker/device/cuda/cudnn_attention.h"
#include "worker/device/cuda/fa4_attention.h"
#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/range_cache.h"
#include "worker/device/cuda/run_cache.h"
#include "worker/device/cuda/scratch.h"

namespace seqpar::cuda {

// Of one device, which is current; used from the thread that enqueues, use() from any. Operands: Device's
// AttentionForward and AttentionBackward.
class CudaAttention {
 public:
  // `only`: no other kernel than this one and our own, whatever is there.
  CudaAttention(Device* device, int capability, bool fixed_order, std::optional<AttentionKernel> only,
                Scratch* scratch)
      : capability_(capability),
        fixed_order_(fixed_order),
        only_(only),
        ranges_(device),
        fa4_(capability, fixed_order, scratch),
        cudnn_(fixed_order, scratch) {}

  // As Device::PrepareAttention.
  void Prepare(const AttentionTile& tile, bool backward);
  absl::Status Forward(cudaStream_t stream, const AttentionTile& tile, const Matrix& out, const Matrix& lse,
                       bool first);
  absl::Status Backward(cudaStream_t stream, const AttentionTile& tile, const Matrix& dout, const Matrix& lse,
                        const Matrix& delta, const Matrix& dq, const Matrix& dk, const Matrix& dv);

  // Whether Forward of a tile that is all there is of its queries' attention gives `results` in bfloat16,
  // rounded once, where out is; Backward where dq is, which is then written. `keys`: also where dk and dv
  // are, of a tile that is all there is of its keys' gradients too.
  bool Rounds(const AttentionTile& tile, const std::vector<Matrix>& results, bool keys);

  // What has run so far; `otherwise` where nothing has.
  AttentionUse Use(const std::string& otherwise) const;

 private:
  // By the table. `plan` asks cuDNN for the tile's runs; `runs` is null where they are too many.
  AttentionKernel Choose(const AttentionTile& tile, const std::vector<Matrix>& others,
                         const std::vector<QueryRun>* runs,
                         const std::function<bool(const std::vector<QueryRun>&)>& plan) const;
  // The same, and remembered for Use.
  AttentionKernel ChooseNow(const AttentionTile& tile, const std::vector<Matrix>& others,
                            const std::function<bool(const std::vector<QueryRun>&)>& plan);
  // Null where no kernel asks for them, or they are too many.
  const std::vector<QueryRun>* RunsOf(const AttentionTile& tile);
  // The tile's queries of `span` by our own kernel.
  absl::Status OwnForward(cudaStream_t stream, const AttentionTile& tile, const QuerySpan& span,
                          const Matrix& out, const Matrix& lse, bool first);
  absl::Status OwnBackward(cudaStream_t stream, const AttentionTile& tile, const QuerySpan& span,
                           const Matrix& dout, const Matrix& lse, const Matrix& delta, const Matrix& dq,
                           const Matrix& dk, const Matrix& dv);
  absl::StatusOr<Tile> TileOf(cudaStream_t stream, const AttentionTile& tile, const QuerySpan& span);

  const int capability_;
  const bool fixed_order_;
  const std::optional<AttentionKernel> only_;
  RangeCache ranges_;
  RunCache runs_;
  Fa4Attention fa4_;
  CudnnAttention cudnn_;
  std::atomic<bool> attended_[kAttentionKernels] = {};  // by AttentionKernel
  std::atomic<bool> free_order_{false};                 // a backward pass whose sums come in any order
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDA_ATTENTION_H_
