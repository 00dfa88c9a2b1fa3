// LayerNorm and RMSNorm, a block of threads a row. A row is read from memory once: its later reads hit the
// first-level cache.
#include <algorithm>

#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/vector.cuh"

namespace seqpar::cuda {
namespace {

constexpr int kThreads = 256;
// Blocks of the backward pass: each adds up the weight gradients of its own rows, in order.
constexpr int kBackwardBlocks = 264;

template <int kWidth, bool kLayerNorm>
__global__ void Forward(View x, View weight, View bias, bool biased, float eps, View y, float* stats) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  const float count = static_cast<float>(x.cols);
  const int step = kThreads * kWidth;
  float mean = 0;
  if (kLayerNorm) {
    float sum = 0;
    for (int64_t col = threadIdx.x * kWidth; col < x.cols; col += step) {
      const Pack<kWidth> v = LoadAt<kWidth>(x, row, col);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum += v.x[i];
    }
    mean = BlockSum(sum, shared) / count;
  }
  float squares = 0;
  for (int64_t col = threadIdx.x * kWidth; col < x.cols; col += step) {
    const Pack<kWidth> v = LoadAt<kWidth>(x, row, col);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) squares += (v.x[i] - mean) * (v.x[i] - mean);
  }
  const float inverse = 1.0f / sqrtf(BlockSum(squares, shared) / count + eps);
  if (threadIdx.x == 0) {
    stats[2 * row] = mean;
    stats[2 * row + 1] = inverse;
  }
  for (int64_t col = threadIdx.x * kWidth; col < x.cols; col += step) {
    Pack<kWidth> v = LoadAt<kWidth>(x, row, col);
    const Pack<kWidth> w = LoadAt<kWidth>(weight, 0, col);
    Pack<kWidth> b{};
    if (biased) b = LoadAt<kWidth>(bias, 0, col);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v.x[i] = (v.x[i] - mean) * inverse * w.x[i] + b.x[i];
    StoreAt<kWidth>(v, y, row, col);
  }
}

struct BackwardViews {
  View x, weight, dy, residual, dx;
  bool has_residual, has_bias;
  const float* stats;
  float* partial;  // [blocks][2 or 1][cols]: of dweight, then of dbias
};

// dx of one row; the row's part of dweight and dbias is added to the block's sums.
template <int kWidth, bool kLayerNorm>
__device__ void BackwardRow(const BackwardViews& v, int64_t row, float* dweight, float* dbias,
                            float* shared) {
  const int step = kThreads * kWidth;
  const float mean = v.stats[2 * row], inverse = v.stats[2 * row + 1];
  float dot = 0, sum = 0;
  for (int64_t col = threadIdx.x * kWidth; col < v.x.cols; col += step) {
    const Pack<kWidth> x = LoadAt<kWidth>(v.x, row, col), d = LoadAt<kWidth>(v.dy, row, col),
                       w = LoadAt<kWidth>(v.weight, 0, col);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float unit = (x.x[i] - mean) * inverse;
      const float dw = __fmul_rn(d.x[i], w.x[i]);  // rounded alike below: a column alone must cancel
      dot += dw * unit;
      sum += dw;
      dweight[col + i] += d.x[i] * unit;
      if (dbias != nullptr) dbias[col + i] += d.x[i];
    }
  }
  const float count = static_cast<float>(v.x.cols);
  dot = BlockSum(dot, shared) / count;
  sum = kLayerNorm ? BlockSum(sum, shared) / count : 0.0f;
  for (int64_t col = threadIdx.x * kWidth; col < v.x.cols; col += step) {
    const Pack<kWidth> x = LoadAt<kWidth>(v.x, row, col), w = LoadAt<kWidth>(v.weight, 0, col);
    Pack<kWidth> d = LoadAt<kWidth>(v.dy, row, col), r{};
    if (v.has_residual) r = LoadAt<kWidth>(v.residual, row, col);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float unit = (x.x[i] - mean) * inverse;
      d.x[i] = inverse * (__fmul_rn(d.x[i], w.x[i]) - sum - unit * dot) + r.x[i];
    }
    StoreAt<kWidth>(d, v.dx, row, col);
  }
}

template <int kWidth, bool kLayerNorm>
__global__ void Backward(BackwardViews v) {
  __shared__ float shared[32];
  // Each thread owns its columns of the sums: no other reads or writes them.
  float* dweight = v.partial + blockIdx.x * v.x.cols * (v.has_bias ? 2 : 1);
  float* dbias = v.has_bias ? dweight + v.x.cols : nullptr;
  for (int64_t col = threadIdx.x * kWidth; col < v.x.cols; col += kThreads * kWidth) {
    for (int i = 0; i < kWidth; ++i) {
      dweight[col + i] = 0;
      if (dbias != nullptr) dbias[col + i] = 0;
    }
  }
  for (int64_t row = blockIdx.x; row < v.x.rows; row += gridDim.x) {
    BackwardRow<kWidth, kLayerNorm>(v, row, dweight, dbias, shared);
  }
}

__global__ void Finish(const float* partial, int blocks, int64_t stride, int64_t cols, float* sums) {
  const int64_t col = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (col >= cols) return;
  double sum = sums[col];
  for (int b = 0; b < blocks; ++b) sum += partial[b * stride + col];
  sums[col] = static_cast<float>(sum);
}

int BackwardBlocks(int64_t rows) { return static_cast<int>(std::min<int64_t>(rows, kBackwardBlocks)); }

}  // namespace

cudaError_t NormForward(cudaStream_t stream, bool layer_norm, const View& x, const View& weight,
                        const View* bias, float eps, const View& y, float* stats) {
  if (x.rows == 0 || x.cols == 0) return cudaSuccess;
  const View b = bias != nullptr ? *bias : weight;
  const bool wide = Wide(x) && Wide(y) && Wide(weight) && Wide(b);
  const auto kernel = wide ? (layer_norm ? Forward<8, true> : Forward<8, false>)
                           : (layer_norm ? Forward<1, true> : Forward<1, false>);
  kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(x, weight, b, bias != nullptr, eps, y,
                                                                 stats);
  return cudaGetLastError();
}

int64_t NormPartialFloats(int64_t rows, int64_t cols) { return 2 * BackwardBlocks(rows) * cols; }

cudaError_t NormBackward(cudaStream_t stream, bool layer_norm, const View& x, const View& weight,
                         const float* stats, const View& dy, const View* residual, const View& dx,
                         float* partial, float* dweight, float* dbias) {
  if (x.rows == 0 || x.cols == 0) return cudaSuccess;
  const BackwardViews views{
      x,     weight, dy, residual != nullptr ? *residual : dy, dx, residual != nullptr, dbias != nullptr,
      stats, partial};
  const bool wide = Wide(x) && Wide(weight) && Wide(dy) && Wide(dx) && Wide(views.residual);
  const auto kernel = wide ? (layer_norm ? Backward<8, true> : Backward<8, false>)
                           : (layer_norm ? Backward<1, true> : Backward<1, false>);
  const int blocks = BackwardBlocks(x.rows);
  kernel<<<blocks, kThreads, 0, stream>>>(views);
  const unsigned across = static_cast<unsigned>((x.cols + kThreads - 1) / kThreads);
  const int64_t stride = x.cols * (dbias != nullptr ? 2 : 1);
  Finish<<<across, kThreads, 0, stream>>>(partial, blocks, stride, x.cols, dweight);
  if (dbias != nullptr)
    Finish<<<across, kThreads, 0, stream>>>(partial + x.cols, blocks, stride, x.cols, dbias);
  return cudaGetLastError();
}

}  // namespace seqpar::cuda
