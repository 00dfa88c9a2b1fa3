#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>

#include "worker/device/cuda/cudnn_sums.h"

namespace seqpar::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr unsigned kAll = 0xffffffffu;

// A warp a row of a head; neighbouring warps have neighbouring heads of one token.
struct Row {
  int64_t outer, head, token;
};
__device__ Row RowOf(const HeadDims& dims, int64_t i) {
  return {i / (dims.heads * dims.tokens), i % dims.heads, i / dims.heads % dims.tokens};
}
template <typename T>
__device__ T* At(const HeadRows& rows, const Row& row) {
  return static_cast<T*>(rows.data) + row.outer * rows.outer_stride + row.head * rows.head_stride +
         row.token * rows.token_stride;
}
__device__ int64_t LineAt(const HeadDims& dims, const Row& row) {
  return (row.outer * dims.heads + row.head) * dims.tokens + row.token;
}

template <typename Fn>
__global__ void __launch_bounds__(kThreads) ForEachRow(HeadDims dims, int64_t rows, Fn fn) {
  for (int64_t i = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; i < rows;
       i += int64_t{gridDim.x} * kWarps) {
    fn(dims, i, RowOf(dims, i), static_cast<int>(threadIdx.x % 32));
  }
}
template <typename Fn>
cudaError_t Launch(cudaStream_t stream, const HeadDims& dims, int64_t rows, Fn fn) {
  if (rows == 0) return cudaSuccess;
  const int64_t blocks = std::min<int64_t>((rows + kWarps - 1) / kWarps, 1 << 20);
  ForEachRow<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(dims, rows, fn);
  return cudaGetLastError();
}

__device__ float2 LoadTwo(const __nv_bfloat16* from) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
}
__device__ float2 LoadTwo(const float* from) { return *reinterpret_cast<const float2*>(from); }

struct FirstFn {
  const __nv_bfloat16* partial;
  const float* partial_lse;
  HeadRows out, lse;
  __device__ void operator()(const HeadDims& dims, int64_t i, const Row& row, int lane) const {
    float* const to = At<float>(out, row);
    const __nv_bfloat16* const from = partial + i * dims.head_dim;
    for (int d = 2 * lane; d < dims.head_dim; d += 64) *reinterpret_cast<float2*>(to + d) = LoadTwo(from + d);
    if (lane == 0) *At<float>(lse, row) = partial_lse[LineAt(dims, row)];
  }
};

template <typename T>
struct MergeFn {
  const T* partial;
  const float* partial_lse;
  HeadRows out, lse;
  __device__ void operator()(const HeadDims& dims, int64_t i, const Row& row, int lane) const {
    float* const at_lse = At<float>(lse, row);
    const float old = *at_lse, added = partial_lse[LineAt(dims, row)];
    __syncwarp();
    if (added == -INFINITY) return;
    const float top = fmaxf(old, added);
    const float both = top + logf(expf(old - top) + expf(added - top));
    const float keep = expf(old - both), take = expf(added - both);
    float* const to = At<float>(out, row);
    const T* const from = partial + i * dims.head_dim;
    for (int d = 2 * lane; d < dims.head_dim; d += 64) {
      const float2 a = *reinterpret_cast<const float2*>(to + d), b = LoadTwo(from + d);
      *reinterpret_cast<float2*>(to + d) =
          make_float2(fmaf(keep, a.x, take * b.x), fmaf(keep, a.y, take * b.y));
    }
    if (lane == 0) *at_lse = both;
  }
};

__device__ float WarpSum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAll, x, offset);
  return x;
}
__device__ float WarpMax(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(kAll, x, offset));
  return x;
}

// kPairs: of elements that a lane holds.
template <int kPairs>
struct PrepareFn {
  HeadRows dout, lse, delta;
  __nv_bfloat16* o;
  float* packed_lse;
  __device__ void operator()(const HeadDims& dims, int64_t i, const Row& row, int lane) const {
    const __nv_bfloat16* const from = At<const __nv_bfloat16>(dout, row);
    float x[kPairs][2];
    float largest = 0;
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      const int d = 2 * lane + 64 * n;
      float2 two = make_float2(0, 0);
      if (d < dims.head_dim) two = LoadTwo(from + d);
      x[n][0] = two.x, x[n][1] = two.y;
      largest = fmaxf(largest, fmaxf(fabsf(two.x), fabsf(two.y)));
    }
    largest = WarpMax(largest);
    const float d_row = *At<float>(delta, row);
    // Of the row over its largest element, so that squares neither overflow nor vanish.
    float least = INFINITY;  // of the elements that are not too small to take up the rest
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        x[n][j] = largest > 0 ? x[n][j] / largest : 0;
        if (fabsf(x[n][j]) > 0x1p-12f) least = fminf(least, fabsf(x[n][j]));
      }
    }
    const float chosen = -WarpMax(-least);
    // The first element of that size takes up the rest, and nothing else unless it is the only one.
    bool mine = false;
#pragma unroll
    for (int n = 0; n < kPairs; ++n) mine |= fabsf(x[n][0]) == chosen || fabsf(x[n][1]) == chosen;
    mine &= lane == __ffs(__ballot_sync(kAll, mine)) - 1;
    float norm = 0;
    bool takes[kPairs][2];
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        takes[n][j] = mine && fabsf(x[n][j]) == chosen;
        if (takes[n][j]) mine = false;
        norm = takes[n][j] ? norm : fmaf(x[n][j], x[n][j], norm);
      }
    }
    norm = WarpSum(norm);
    const float wanted = largest > 0 ? d_row / largest : 0;
    const float factor = norm > 0 ? wanted / norm : 0;
    float made = 0, rounded[kPairs][2];
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        rounded[n][j] = takes[n][j] ? 0 : __bfloat162float(__float2bfloat16_rn(factor * x[n][j]));
        made = fmaf(rounded[n][j], x[n][j], made);
      }
    }
    const float rest = wanted - WarpSum(made);
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if (takes[n][j]) rounded[n][j] = rest / x[n][j];
      }
    }
    __nv_bfloat16* const to = o + i * dims.head_dim;
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      const int d = 2 * lane + 64 * n;
      if (d < dims.head_dim) {
        *reinterpret_cast<__nv_bfloat162*>(to + d) = __floats2bfloat162_rn(rounded[n][0], rounded[n][1]);
      }
    }
    if (lane == 0) {
      const float natural = *At<float>(lse, row);
      packed_lse[LineAt(dims, row)] = natural == -INFINITY ? 0.0f : natural;
    }
  }
};

// dims.outer is 1 here: each thread walks over the outer ones by itself.
struct AddFn {
  const __nv_bfloat16* sums;
  HeadRows to;
  int64_t outer;
  __device__ void operator()(const HeadDims& dims, int64_t i, const Row& row, int lane) const {
    const int64_t step = dims.tokens * dims.heads * dims.head_dim;
    for (int d = 2 * lane; d < dims.head_dim; d += 64) {
      for (int64_t o = 0; o < outer; ++o) {
        float2* const at = reinterpret_cast<float2*>(At<float>(to, {o, row.head, row.token}) + d);
        const float2 a = *at, b = LoadTwo(sums + o * step + i * dims.head_dim + d);
        *at = make_float2(a.x + b.x, a.y + b.y);
      }
    }
  }
};

int64_t Rows(const HeadDims& dims) { return dims.outer * dims.heads * dims.tokens; }

}  // namespace

cudaError_t MergePartial(cudaStream_t stream, const HeadDims& dims, const void* partial,
                         const float* partial_lse, bool first, const HeadRows& out, const HeadRows& lse) {
  const auto* const from = static_cast<const __nv_bfloat16*>(partial);
  return first ? Launch(stream, dims, Rows(dims), FirstFn{from, partial_lse, out, lse})
               : Launch(stream, dims, Rows(dims), MergeFn<__nv_bfloat16>{from, partial_lse, out, lse});
}

cudaError_t MergePartial(cudaStream_t stream, const HeadDims& dims, const float* partial,
                         const float* partial_lse, const HeadRows& out, const HeadRows& lse) {
  return Launch(stream, dims, Rows(dims), MergeFn<float>{partial, partial_lse, out, lse});
}

cudaError_t PrepareCudnnBackward(cudaStream_t stream, const HeadDims& dims, const HeadRows& dout,
                                 const HeadRows& lse, const HeadRows& delta, void* o, float* packed_lse) {
  auto* const to = static_cast<__nv_bfloat16*>(o);
  if (dims.head_dim <= 64) {
    return Launch(stream, dims, Rows(dims), PrepareFn<1>{dout, lse, delta, to, packed_lse});
  }
  if (dims.head_dim <= 128) {
    return Launch(stream, dims, Rows(dims), PrepareFn<2>{dout, lse, delta, to, packed_lse});
  }
  if (dims.head_dim > 256) return cudaErrorInvalidValue;
  return Launch(stream, dims, Rows(dims), PrepareFn<4>{dout, lse, delta, to, packed_lse});
}

cudaError_t AddPacked(cudaStream_t stream, const HeadDims& dims, const void* sums, const HeadRows& to) {
  HeadDims once = dims;
  once.outer = 1;
  return Launch(stream, once, Rows(once), AddFn{static_cast<const __nv_bfloat16*>(sums), to, dims.outer});
}

}  // namespace seqpar::cuda
