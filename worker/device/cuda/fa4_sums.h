// What stands around the backward kernel of fa4_kernels.h: its log-sum-exps, deltas and sums, which it wants
// head by head in whole tiles of queries, from and to the matrices of common/device/device.h.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_FA4_SUMS_H_
#define SEQPAR_WORKER_DEVICE_CUDA_FA4_SUMS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace seqpar::cuda {

// A value a (outer, head, query), float32 unless a function says otherwise, anywhere in a matrix.
struct PerQuery {
  float* data;
  int64_t outer_stride, head_stride, query_stride;
};

// How the elements of a tile's dQ lie in its sums.
enum class SumOrder {
  kRegisters,     // as Hopper's threads hold the accumulators: fa4_sums.cu
  kTensorMemory,  // tiles of 128 queries: four columns of each query, then the next four of each
};

// Sums of `outer` x `heads` heads: lse and delta [outer][heads][padded], sums [outer][heads][padded *
// head_dim], with `padded` queries a multiple of tile_m.
struct BackwardSums {
  SumOrder order;
  int outer, heads, head_dim, tile_m;
  int64_t queries, padded;
  float *lse, *delta, *sums;
};

// lse in base 2 (0 where it is -infinity) and delta from the matrices' own, infinity and 0 past the last
// query; zeroes the sums.
cudaError_t PrepareBackward(cudaStream_t stream, const PerQuery& lse, const PerQuery& delta,
                            const BackwardSums& to);
// dq += scale * sums, which are put in order. dq: its rows' first elements; 16-byte aligned.
cudaError_t AddQueryGradients(cudaStream_t stream, const BackwardSums& from, float scale, const PerQuery& dq);
// dq = scale * sums, rounded to bfloat16. SumOrder::kRegisters; dq is of bfloat16, with strides of its own.
cudaError_t RoundQueryGradients(cudaStream_t stream, const BackwardSums& from, float scale,
                                const PerQuery& dq);

// Queries that see no key: rows of out become 0, of lse -infinity.
cudaError_t FillUnseen(cudaStream_t stream, float* out, int64_t out_ld, int64_t out_cols, float* lse,
                       int64_t lse_ld, int64_t lse_cols, int64_t rows);

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_FA4_SUMS_H_
