// Attention by cuDNN's fused kernels: its graphs. Where the build left it out (SEQPAR_CUDNN) there are none.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDNN_GRAPHS_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDNN_GRAPHS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/cuda/cudnn_plan.h"
#include "worker/device/cuda/cudnn_shape.h"

namespace seqpar::cuda {

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

// Of the device that is current when it is made; used from one thread.
class CudnnGraphs {
 public:
  // UNAVAILABLE where the build or the machine has no cuDNN that serves.
  static absl::StatusOr<std::unique_ptr<CudnnGraphs>> Create();
  virtual ~CudnnGraphs() = default;

  // No graph where cuDNN has no kernel for the shape. Takes the host 60 to 90 ms, and up to 1.3 s more where
  // cuDNN compiles the kernel, which it does once a process for what kernels differ in (cudnn_attention.h).
  // The graph must not outlive this.
  virtual CudnnKernel Make(const CudnnShape& shape) = 0;

  // Enqueue; `workspace` is 256-byte aligned. INTERNAL with cuDNN's own words.
  virtual absl::Status Forward(cudaStream_t stream, const CudnnGraph& graph, const CudnnForwardCall& call,
                               void* workspace) = 0;
  virtual absl::Status Backward(cudaStream_t stream, const CudnnGraph& graph, const CudnnBackwardCall& call,
                                void* workspace) = 0;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_GRAPHS_H_
