// Attention by cuDNN's fused kernels: its graphs, by shape. Where the build left it out (SEQPAR_CUDNN) there
// are none.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDNN_GRAPHS_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDNN_GRAPHS_H_

#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/cuda/cudnn_pieces.h"

namespace seqpar::cuda {

// In elements; those of one feature to the next are 1.
struct CudnnStrides {
  int64_t outer = 0, head = 0, token = 0;
  auto operator<=>(const CudnnStrides&) const = default;
};

// What one graph computes. Heads are [outer][heads]; K and V have as many, by strides.
struct CudnnShape {
  CudnnPass pass = CudnnPass::kForward;
  CudnnMask mask = CudnnMask::kFull;
  int head_dim = 0;
  float scale = 1;
  int64_t outer = 1, heads = 1, queries = 0, keys = 0;
  CudnnStrides q, k, v;
  CudnnStrides dout;  // backward
  auto operator<=>(const CudnnShape&) const = default;
};

// Rows are bfloat16: what cuDNN computes is rounded once. (It takes results described as float32, and writes
// the bits of bfloat16 into them: 9.19 on sm_90.) Those of results, and of o, are packed: [outer][queries or
// keys][heads][head_dim]; so are log-sum-exps, float32 and natural: [outer][heads][queries].
struct CudnnForwardCall {
  const void *q, *k, *v;
  void* out;
  float* lse;
};
struct CudnnBackwardCall {
  const void *q, *k, *v, *dout;
  const void* o;       // of all keys, or whatever has the same products with dout, row by row
  const float* lse;    // of all keys
  void *dq, *dk, *dv;  // written, not added to
};

class CudnnGraph;

// Of the device that is current when it is made; used from one thread.
class CudnnGraphs {
 public:
  // UNAVAILABLE where the build or the machine has no cuDNN that serves.
  static absl::StatusOr<std::unique_ptr<CudnnGraphs>> Create();
  virtual ~CudnnGraphs() = default;

  // Null where cuDNN has no kernel for the shape. The first time takes it a tenth of a second, or a second
  // where it compiles the kernel; what it found is kept.
  virtual std::shared_ptr<const CudnnGraph> Find(const CudnnShape& shape) = 0;

  virtual int64_t WorkspaceBytes(const CudnnGraph& graph) const = 0;
  // Enqueue; `workspace` is 256-byte aligned. INTERNAL with cuDNN's own words.
  virtual absl::Status Forward(cudaStream_t stream, const CudnnGraph& graph, const CudnnForwardCall& call,
                               void* workspace) = 0;
  virtual absl::Status Backward(cudaStream_t stream, const CudnnGraph& graph, const CudnnBackwardCall& call,
                                void* workspace) = 0;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_GRAPHS_H_
