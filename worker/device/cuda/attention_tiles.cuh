// What both passes of our own attention kernels are made of: tiles in shared memory, products of them, and
// the keys and queries that a tile's masks leave. True float32.
//
// Nomenclature: a block of threads is a square of 16 x 16; thread (y, x) owns rows y, y + 16, ... of a tile.
// Tiles lie in shared memory row by row, each row padded by four floats: 16 neighbouring rows read at one
// column, or one row read at 16 neighbouring quadruples, touch every bank once.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TILES_CUH_
#define SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TILES_CUH_

#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/vector.cuh"

namespace seqpar::cuda {

constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.69314718055994531f;

// Floats of a tile's row in shared memory.
__host__ __device__ constexpr int Pitch(int cols) { return cols + 4; }

__device__ inline float4 Load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ inline float Dot(const float4& a, const float4& b, float sum) {
  sum = fmaf(a.x, b.x, sum);
  sum = fmaf(a.y, b.y, sum);
  sum = fmaf(a.z, b.z, sum);
  return fmaf(a.w, b.w, sum);
}
__device__ inline void AddScaled(float factor, const float4& v, float* sum) {
  sum[0] = fmaf(factor, v.x, sum[0]);
  sum[1] = fmaf(factor, v.y, sum[1]);
  sum[2] = fmaf(factor, v.z, sum[2]);
  sum[3] = fmaf(factor, v.w, sum[3]);
}

// One head of a matrix whose rows are token * batch + index.
template <typename T>
struct HeadView {
  T* data;
  int64_t stride;  // from token to token
  __device__ T* Row(int64_t token) const { return data + token * stride; }
};
template <typename T>
__device__ HeadView<T> HeadOf(const View& m, int64_t batch, int64_t index, int head, int head_dim) {
  return {static_cast<T*>(m.data) + index * m.ld + int64_t{head} * head_dim, batch * m.ld};
}

// Tokens [first, first + kRows) of a head, times `factor`; zeros past `tokens` and past head_dim.
template <int kRows, int kDim, typename T>
__device__ void LoadTile(const HeadView<T>& from, int64_t first, int64_t tokens, int head_dim, float factor,
                         float* to) {
  for (int i = threadIdx.x; i < kRows * kDim; i += kThreads) {
    const int row = i / kDim, col = i % kDim;
    const bool there = first + row < tokens && col < head_dim;
    to[row * Pitch(kDim) + col] = there ? Load(from.Row(first + row) + col) * factor : 0.0f;
  }
}

// s[i][j] = rows y + 16 i of a times rows x + 16 j of b.
template <int kM, int kN, int kDim>
__device__ void Products(const float* a, const float* b, int y, int x, float (&s)[kM][kN]) {
#pragma unroll
  for (int i = 0; i < kM; ++i) {
#pragma unroll
    for (int j = 0; j < kN; ++j) s[i][j] = 0;
  }
#pragma unroll 4
  for (int d = 0; d < kDim; d += 4) {
    float4 ra[kM], rb[kN];
#pragma unroll
    for (int i = 0; i < kM; ++i) ra[i] = Load4(a + (y + kSide * i) * Pitch(kDim) + d);
#pragma unroll
    for (int j = 0; j < kN; ++j) rb[j] = Load4(b + (x + kSide * j) * Pitch(kDim) + d);
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) s[i][j] = Dot(ra[i], rb[j], s[i][j]);
    }
  }
}

// sum[i][.] += rows y + 16 i of p [., kK] times v [kK, kDim]; the thread's columns are 4 x + 64 g + {0..3}.
template <int kM, int kK, int kDim>
__device__ void Accumulate(const float* p, const float* v, int y, int x, float (&sum)[kM][kDim / kSide]) {
#pragma unroll 2
  for (int k = 0; k < kK; k += 4) {
    float4 rp[kM];
#pragma unroll
    for (int i = 0; i < kM; ++i) rp[i] = Load4(p + (y + kSide * i) * Pitch(kK) + k);
#pragma unroll
    for (int g = 0; g < kDim / 64; ++g) {
      const float* column = v + k * Pitch(kDim) + 4 * x + 64 * g;
      const float4 v0 = Load4(column), v1 = Load4(column + Pitch(kDim)), v2 = Load4(column + 2 * Pitch(kDim)),
                   v3 = Load4(column + 3 * Pitch(kDim));
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        AddScaled(rp[i].x, v0, sum[i] + 4 * g);
        AddScaled(rp[i].y, v1, sum[i] + 4 * g);
        AddScaled(rp[i].z, v2, sum[i] + 4 * g);
        AddScaled(rp[i].w, v3, sum[i] + 4 * g);
      }
    }
  }
}

__device__ inline float RowMax(float value) {
#pragma unroll
  for (int offset = kSide / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
  return value;
}
__device__ inline float RowSum(float value) {
#pragma unroll
  for (int offset = kSide / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

struct Range {
  int64_t begin, end;
};

// The keys that queries [first, first + rows) see: neither bound descends, so the outermost are at the ends
// (queries that see nothing have lo == hi and do not widen the range beyond their neighbours').
__device__ inline Range KeysOf(const Tile& t, int64_t first, int rows) {
  const int64_t last = min(t.queries, first + rows) - 1;
  return {max(t.lo[first], 0), min(int64_t{t.hi[last]}, t.keys)};
}
// The queries that see a key of [first, first + rows).
__device__ inline Range QueriesOf(const Tile& t, int64_t first, int rows) {
  const int64_t end = min(t.keys, first + rows);
  int64_t low = 0, high = t.queries;  // the first query with hi > first
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (t.hi[middle] > first)
      high = middle;
    else
      low = middle + 1;
  }
  const int64_t begin = low;
  high = t.queries;  // the first query with lo >= end
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (t.lo[middle] >= end)
      high = middle;
    else
      low = middle + 1;
  }
  return {begin, low};
}

template <int kDim>
struct Shape {
  static constexpr int kLarge = kDim > 128 ? 32 : 64;  // rows of the tile that a block owns
  static constexpr int kSmall = 32;                    // rows of the tiles that it walks over, backward
};

template <typename Kernel>
cudaError_t Prepare(Kernel kernel, int floats) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, floats * 4);
}

inline int64_t Tiles(int64_t tokens, int rows) { return (tokens + rows - 1) / rows; }

// fn.template operator()<kDim, T>() for the padded head dimension and storage type of the tile.
template <typename Fn>
cudaError_t Dispatch(const Tile& t, const Fn& fn) {
  const bool single = t.q.type == Type::kF32;
  if (t.head_dim <= 64)
    return single ? fn.template operator()<64, float>() : fn.template operator()<64, __nv_bfloat16>();
  if (t.head_dim <= 128)
    return single ? fn.template operator()<128, float>() : fn.template operator()<128, __nv_bfloat16>();
  return single ? fn.template operator()<256, float>() : fn.template operator()<256, __nv_bfloat16>();
}

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_ATTENTION_TILES_CUH_
