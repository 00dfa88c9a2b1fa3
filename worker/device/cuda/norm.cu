// LayerNorm and RMSNorm, a block of threads a row. A row is read from memory once: its later reads hit the
// first-level cache.
#include <algorithm>

#include "common/device/cuda_scratch.h"
#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/vector.cuh"

namespace seqpar::cuda {
namespace {

constexpr int kThreads = 256;

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
  bool has_residual;
  const float* stats;
  float* partial;  // [blocks][2 or 1][cols]: of dweight, then of dbias
};

// What a thread adds up over its block's rows for the columns that it owns. Up to kPacks packs of columns
// stay in registers; wider matrices (kPacks 0) take memory, at a quarter of the speed.
template <int kWidth, int kPacks>
class ColumnSums {
 public:
  __device__ explicit ColumnSums(float*) {}
  __device__ void Add(int pack, int64_t, int i, float value) { sums_[pack][i] += value; }
  __device__ void Store(int pack, int64_t col, float* to) const {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[col + i] = sums_[pack][i];
  }

 private:
  float sums_[kPacks][kWidth] = {};
};
template <int kWidth>
class ColumnSums<kWidth, 0> {
 public:
  __device__ explicit ColumnSums(float* memory) : memory_(memory) {}
  __device__ void Add(int, int64_t col, int i, float value) { memory_[col + i] += value; }
  __device__ void Store(int, int64_t, float*) const {}

 private:
  float* const memory_;
};

// Calls fn(pack, col) for the packs of columns that this thread owns; `pack` is known to the compiler where
// kPacks is not 0.
template <int kWidth, int kPacks, typename Fn>
__device__ void ForEachOwnPack(int64_t cols, const Fn& fn) {
  if constexpr (kPacks > 0) {
#pragma unroll
    for (int pack = 0; pack < kPacks; ++pack) {
      const int64_t col = (pack * kThreads + static_cast<int64_t>(threadIdx.x)) * kWidth;
      if (col < cols) fn(pack, col);
    }
  } else {
    for (int64_t col = threadIdx.x * kWidth; col < cols; col += kThreads * kWidth) fn(0, col);
  }
}

template <int kWidth, int kPacks, bool kLayerNorm>
__global__ void __launch_bounds__(kThreads) Backward(BackwardViews v) {
  __shared__ float shared[32];
  float* const dweight = v.partial + blockIdx.x * v.x.cols * (kLayerNorm ? 2 : 1);
  float* const dbias = dweight + v.x.cols;
  if constexpr (kPacks == 0) {
    ForEachOwnPack<kWidth, kPacks>(v.x.cols, [&](int, int64_t col) {
      for (int i = 0; i < kWidth; ++i) {
        dweight[col + i] = 0;
        if (kLayerNorm) dbias[col + i] = 0;
      }
    });
  }
  ColumnSums<kWidth, kPacks> dweight_sums(dweight);
  ColumnSums<kWidth, kLayerNorm ? kPacks : (kPacks > 0 ? 1 : 0)> dbias_sums(dbias);
  const float count = static_cast<float>(v.x.cols);
  for (int64_t row = blockIdx.x; row < v.x.rows; row += gridDim.x) {
    const float mean = v.stats[2 * row], inverse = v.stats[2 * row + 1];
    float dot = 0, sum = 0;
    ForEachOwnPack<kWidth, kPacks>(v.x.cols, [&](int pack, int64_t col) {
      const Pack<kWidth> x = LoadAt<kWidth>(v.x, row, col), d = LoadAt<kWidth>(v.dy, row, col),
                         w = LoadAt<kWidth>(v.weight, 0, col);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float unit = (x.x[i] - mean) * inverse;
        const float dw = __fmul_rn(d.x[i], w.x[i]);  // rounded alike below: a column alone must cancel
        dot += dw * unit;
        sum += dw;
        dweight_sums.Add(pack, col, i, d.x[i] * unit);
        if constexpr (kLayerNorm) dbias_sums.Add(pack, col, i, d.x[i]);
      }
    });
    dot = BlockSum(dot, shared) / count;
    sum = kLayerNorm ? BlockSum(sum, shared) / count : 0.0f;
    ForEachOwnPack<kWidth, kPacks>(v.x.cols, [&](int, int64_t col) {
      const Pack<kWidth> x = LoadAt<kWidth>(v.x, row, col), w = LoadAt<kWidth>(v.weight, 0, col);
      Pack<kWidth> d = LoadAt<kWidth>(v.dy, row, col), r{};
      if (v.has_residual) r = LoadAt<kWidth>(v.residual, row, col);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float unit = (x.x[i] - mean) * inverse;
        d.x[i] = inverse * (__fmul_rn(d.x[i], w.x[i]) - sum - unit * dot) + r.x[i];
      }
      StoreAt<kWidth>(d, v.dx, row, col);
    });
  }
  ForEachOwnPack<kWidth, kPacks>(v.x.cols, [&](int pack, int64_t col) {
    dweight_sums.Store(pack, col, dweight);
    if constexpr (kLayerNorm) dbias_sums.Store(pack, col, dbias);
  });
}

template <bool kLayerNorm>
auto ChooseBackward(bool wide, int64_t cols) {
  if (!wide) return Backward<1, 0, kLayerNorm>;
  const int64_t packs = (cols / 8 + kThreads - 1) / kThreads;
  return packs <= 1   ? Backward<8, 1, kLayerNorm>
         : packs <= 2 ? Backward<8, 2, kLayerNorm>
         : packs <= 4 ? Backward<8, 4, kLayerNorm>
                      : Backward<8, 0, kLayerNorm>;
}

__global__ void Finish(const float* partial, int blocks, int64_t stride, int64_t cols, float* sums) {
  const int64_t col = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (col >= cols) return;
  double sum = sums[col];
  for (int b = 0; b < blocks; ++b) sum += partial[b * stride + col];
  sums[col] = static_cast<float>(sum);
}

// Each adds up the weight gradients of its own rows, in order.
int BackwardBlocks(int64_t rows) { return static_cast<int>(std::min<int64_t>(rows, kCudaNormBlocks)); }

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

cudaError_t NormBackward(cudaStream_t stream, bool layer_norm, const View& x, const View& weight,
                         const float* stats, const View& dy, const View* residual, const View& dx,
                         float* partial, float* dweight, float* dbias) {
  if (x.rows == 0 || x.cols == 0) return cudaSuccess;
  const BackwardViews views{x,     weight, dy, residual != nullptr ? *residual : dy, dx, residual != nullptr,
                            stats, partial};
  const bool wide = Wide(x) && Wide(weight) && Wide(dy) && Wide(dx) && Wide(views.residual);
  // LayerNorm always has a bias, and RMSNorm never.
  const auto kernel = layer_norm ? ChooseBackward<true>(wide, x.cols) : ChooseBackward<false>(wide, x.cols);
  const int blocks = BackwardBlocks(x.rows);
  kernel<<<blocks, kThreads, 0, stream>>>(views);
  const unsigned across = static_cast<unsigned>((x.cols + kThreads - 1) / kThreads);
  const int64_t stride = x.cols * (layer_norm ? 2 : 1);
  Finish<<<across, kThreads, 0, stream>>>(partial, blocks, stride, x.cols, dweight);
  if (dbias != nullptr)
    Finish<<<across, kThreads, 0, stream>>>(partial + x.cols, blocks, stride, x.cols, dbias);
  return cudaGetLastError();
}

}  // namespace seqpar::cuda
