// Of each row and head, the product of the output and its gradient.
#include <algorithm>

#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/vector.cuh"

namespace seqpar::cuda {
namespace {

constexpr int kThreads = 256;

// A thread a (row, head), one product after the other as Products adds up dout . v: where a query sees one
// key, out is its v, and the two must cancel to nothing.
__global__ void Delta(int head_dim, View dout, View out, View delta) {
  const int64_t item = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (item >= delta.rows * delta.cols) return;
  const int64_t row = item / delta.cols, head = item % delta.cols;
  float sum = 0;
  for (int d = 0; d < head_dim; ++d) {
    const int64_t at = head * head_dim + d;
    sum = fmaf(LoadAt<1>(dout, row, at).x[0], LoadAt<1>(out, row, at).x[0], sum);
  }
  static_cast<float*>(delta.data)[row * delta.ld + head] = sum;
}

// The same sums in the same order, where rows are whole vectors: a warp brings its threads' rows in as they
// lie in memory, kStagedCols at a time: few, so that many warps have shared memory and loads in flight.
constexpr int kStagedCols = 32, kStagedPitch = kStagedCols + 1, kStagedWarps = 4;
constexpr int kStagedVectors = kStagedCols / 8, kStagedPasses = kStagedVectors;
__global__ void __launch_bounds__(32 * kStagedWarps)
    DeltaStaged(int head_dim, View dout, View out, View delta) {
  __shared__ float staged[kStagedWarps][2][32 * kStagedPitch];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t items = delta.rows * delta.cols, first = (int64_t{blockIdx.x} * kStagedWarps + warp) * 32;
  float* const left = staged[warp][0];
  float* const right = staged[warp][1];
  float sum = 0;
  for (int from = 0; from < head_dim; from += kStagedCols) {
    const int col = lane % kStagedVectors * 8;
#pragma unroll
    for (int pass = 0; pass < kStagedPasses; ++pass) {
      const int local = (pass * 32 + lane) / kStagedVectors;
      const int64_t item = first + local;
      if (item >= items || from + col >= head_dim) continue;
      const int64_t row = item / delta.cols, at = item % delta.cols * head_dim + from + col;
      const Pack<8> a = LoadAt<8>(dout, row, at), b = LoadAt<8>(out, row, at);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        left[local * kStagedPitch + col + i] = a.x[i];
        right[local * kStagedPitch + col + i] = b.x[i];
      }
    }
    __syncwarp();
    const int cols = min(kStagedCols, head_dim - from);
    for (int d = 0; d < cols; ++d) {
      sum = fmaf(left[lane * kStagedPitch + d], right[lane * kStagedPitch + d], sum);
    }
    __syncwarp();
  }
  const int64_t item = first + lane;
  if (item < items) static_cast<float*>(delta.data)[item / delta.cols * delta.ld + item % delta.cols] = sum;
}

}  // namespace

cudaError_t AttentionDelta(cudaStream_t stream, int head_dim, const View& dout, const View& out,
                           const View& delta) {
  const int64_t threads = delta.rows * delta.cols;
  if (threads == 0) return cudaSuccess;
  if (Wide(dout) && Wide(out) && head_dim % 8 == 0) {
    constexpr int kItems = 32 * kStagedWarps;
    DeltaStaged<<<static_cast<unsigned>((threads + kItems - 1) / kItems), kItems, 0, stream>>>(head_dim, dout,
                                                                                               out, delta);
  } else {
    Delta<<<static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0, stream>>>(head_dim, dout,
                                                                                               out, delta);
  }
  return cudaGetLastError();
}

}  // namespace seqpar::cuda
