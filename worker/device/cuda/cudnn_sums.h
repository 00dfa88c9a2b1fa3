// What stands around cuDNN's attention (cudnn_graphs.h): partial results that merge, sums that are added to,
// and what its backward pass wants in the place of delta. Those of FlashAttention-4's kernels that do not
// merge by themselves (fa4_attention.h) have their results merged here too.
//
// Heads are [outer][heads], tokens and features as said; "packed" is bfloat16
// [outer][tokens][heads][head_dim], and for a value a head float32 [outer][heads][tokens]. Head dimensions
// are even.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDNN_SUMS_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDNN_SUMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace seqpar::cuda {

// Where head rows lie in a matrix; strides in elements.
struct HeadRows {
  void* data;
  int64_t outer_stride, head_stride, token_stride;
};

struct HeadDims {
  int64_t outer, heads, tokens;
  int head_dim;
};

// out and lse (natural log, float32) become those of both sets of keys: their own and that of the packed
// partial result; or, where `first`, the latter's alone. -infinity is the log-sum-exp of no keys.
cudaError_t MergePartial(cudaStream_t stream, const HeadDims& dims, const void* partial,
                         const float* partial_lse, bool first, const HeadRows& out, const HeadRows& lse);
// Merges the same partial result in float32.
cudaError_t MergePartial(cudaStream_t stream, const HeadDims& dims, const float* partial,
                         const float* partial_lse, const HeadRows& out, const HeadRows& lse);

// Packed: lse, 0 where it is -infinity; and o, whose products with dout (bfloat16) are delta. That
// needs no output that was rounded: o is dout * delta / |dout|^2 but for one element, which takes up
// what rounding leaves, and all that cuDNN takes from o is its product with dout.
cudaError_t PrepareCudnnBackward(cudaStream_t stream, const HeadDims& dims, const HeadRows& dout,
                                 const HeadRows& lse, const HeadRows& delta, void* o, float* packed_lse);

// to (float32) += packed sums, the outer ones in order: where to.outer_stride is 0 they share their rows.
cudaError_t AddPacked(cudaStream_t stream, const HeadDims& dims, const void* sums, const HeadRows& to);

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDNN_SUMS_H_
