#include <cuda_bf16.h>

#include <cmath>
#include <type_traits>

#include "worker/device/cuda/fa4_sums.h"

namespace seqpar::cuda {
namespace {

constexpr int kThreads = 256;
constexpr float kLog2E = 1.4426950408889634f;

// A block a (tile of queries, head).
__global__ void Prepare(PerQuery lse, PerQuery delta, BackwardSums to) {
  const int64_t head = blockIdx.y, outer = head / to.heads, inner = head % to.heads;
  const int64_t first = int64_t{blockIdx.x} * to.tile_m;
  for (int i = threadIdx.x; i < to.tile_m; i += kThreads) {
    const int64_t query = first + i;
    float base2 = INFINITY, d = 0;
    if (query < to.queries) {
      const float natural =
          lse.data[outer * lse.outer_stride + inner * lse.head_stride + query * lse.query_stride];
      base2 = natural == -INFINITY ? 0.0f : natural * kLog2E;
      d = delta.data[outer * delta.outer_stride + inner * delta.head_stride + query * delta.query_stride];
    }
    to.lse[head * to.padded + query] = base2;
    to.delta[head * to.padded + query] = d;
  }
  auto* sums = reinterpret_cast<float4*>(to.sums + (head * to.padded + first) * to.head_dim);
  for (int i = threadIdx.x; i < to.tile_m * to.head_dim / 4; i += kThreads) {
    sums[i] = make_float4(0, 0, 0, 0);
  }
}

// How the kernel of a head dimension and tile lays down a tile's dQ (fa4/export.py, backward_tile): each of
// kGroups warpgroups the fragments of its 64 x N part, element v of thread t at (v / 4) * 512 + t * 4 + v
// % 4. By the layout of wgmma's accumulators (PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16")
// that element is at row 16 (t / 32) + (t % 32) / 4 + 8 (v / 2 % 2) and column 8 (v / 4) + 2 (t % 4) + v % 2
// of the part.
enum class Parts {
  kOne,      // one part
  kRows,     // the parts are 64 queries each
  kColumns,  // the parts are 64 columns each
};

// Where a thread's vector v of a tile lies: elements x and y at row `row`, z and w eight rows on, from
// column `col` on.
template <Parts kParts, int kTile, int kDim>
struct Fragment {
  int row, col;
  __device__ explicit Fragment(int v) {
    constexpr int kPart = kTile * kDim / (kParts == Parts::kOne ? 1 : 2);  // floats
    const int group = v / (kPart / 4), within = v % (kPart / 4), block = within / 128, thread = within % 128;
    row = 16 * (thread / 32) + thread % 32 / 4 + (kParts == Parts::kRows ? 64 * group : 0);
    col = 8 * block + 2 * (thread % 4) + (kParts == Parts::kColumns ? 64 * group : 0);
  }
};

template <typename To>
__device__ To* RowsOf(const PerQuery& dq, int64_t outer, int64_t inner) {
  return reinterpret_cast<To*>(dq.data) + outer * dq.outer_stride + inner * dq.head_stride;
}

template <Parts kParts, int kTile, int kDim>
__global__ void __launch_bounds__(kThreads) AddGradients(BackwardSums from, float scale, PerQuery dq) {
  constexpr int kVectors = kTile * kDim / 4 / kThreads;  // of a thread
  static_assert(kVectors * 4 * kThreads == kTile * kDim);
  const int64_t head = blockIdx.y, outer = head / from.heads, inner = head % from.heads;
  const int64_t first = int64_t{blockIdx.x} * kTile;
  const auto* sums = reinterpret_cast<const float4*>(from.sums + (head * from.padded + first) * kDim);
  float* const to = RowsOf<float>(dq, outer, inner);
  // Every load before the first store, so that they overlap.
  float4 v[kVectors];
  float2* at[kVectors][2];
  float2 old[kVectors][2];
#pragma unroll
  for (int n = 0; n < kVectors; ++n) v[n] = sums[threadIdx.x + n * kThreads];
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    const Fragment<kParts, kTile, kDim> fragment(threadIdx.x + n * kThreads);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int64_t query = first + fragment.row + 8 * j;
      at[n][j] = query < from.queries ? reinterpret_cast<float2*>(to + query * dq.query_stride + fragment.col)
                                      : nullptr;
      old[n][j] = at[n][j] == nullptr ? make_float2(0, 0) : *at[n][j];
    }
  }
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    const float2 added[2] = {{v[n].x, v[n].y}, {v[n].z, v[n].w}};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (at[n][j] == nullptr) continue;
      *at[n][j] = make_float2(fmaf(added[j].x, scale, old[n][j].x), fmaf(added[j].y, scale, old[n][j].y));
    }
  }
}

__device__ uint32_t RoundedPair(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Bfloat16 is written. A thread's vectors are of neighbouring blocks of eight columns, and two threads trade
// the halves of two: each then has four columns beside one another, and four of them a whole sector.
template <Parts kParts, int kTile, int kDim>
__global__ void __launch_bounds__(kThreads) RoundGradients(BackwardSums from, float scale, PerQuery dq) {
  constexpr int kVectors = kTile * kDim / 4 / kThreads;
  static_assert(kVectors * 4 * kThreads == kTile * kDim && kVectors % 2 == 0 && kThreads == 256);
  const int64_t head = blockIdx.y, outer = head / from.heads, inner = head % from.heads;
  const int64_t first = int64_t{blockIdx.x} * kTile;
  const auto* sums = reinterpret_cast<const float4*>(from.sums + (head * from.padded + first) * kDim);
  auto* const to = RowsOf<__nv_bfloat16>(dq, outer, inner);
  const int begin = threadIdx.x / 128 * kVectors * 128 + threadIdx.x % 128;
  const bool odd = threadIdx.x % 2 != 0;
  float4 v[kVectors];
#pragma unroll
  for (int n = 0; n < kVectors; ++n) v[n] = sums[begin + n * 128];
#pragma unroll
  for (int n = 0; n < kVectors; n += 2) {
    const Fragment<kParts, kTile, kDim> fragment(begin + (n + odd) * 128);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const uint32_t low =
          j == 0 ? RoundedPair(v[n].x * scale, v[n].y * scale) : RoundedPair(v[n].z * scale, v[n].w * scale);
      const uint32_t high = j == 0 ? RoundedPair(v[n + 1].x * scale, v[n + 1].y * scale)
                                   : RoundedPair(v[n + 1].z * scale, v[n + 1].w * scale);
      const uint32_t got = __shfl_xor_sync(0xffffffff, odd ? low : high, 1);
      const int64_t query = first + fragment.row + 8 * j;
      if (query >= from.queries) continue;
      *reinterpret_cast<uint2*>(to + query * dq.query_stride + fragment.col - 2 * odd) =
          odd ? make_uint2(got, high) : make_uint2(low, got);
    }
  }
}

// SumOrder::kTensorMemory (the package's bwd_accum_tile.py, TMEM_FRAG_1CTA). A thread has half of a row.
template <int kDim>
__global__ void __launch_bounds__(kThreads) AddRows(BackwardSums from, float scale, PerQuery dq) {
  constexpr int kTile = kThreads / 2, kVectors = kDim / 8, kAhead = 4;
  static_assert(kVectors % kAhead == 0);
  const int64_t head = blockIdx.y, outer = head / from.heads, inner = head % from.heads;
  const int64_t first = int64_t{blockIdx.x} * kTile;
  const int row = threadIdx.x % kTile, half = threadIdx.x / kTile;
  if (first + row >= from.queries) return;
  const auto* sums = reinterpret_cast<const float4*>(from.sums + (head * from.padded + first) * kDim) +
                     half * kVectors * kTile + row;
  auto* const to = reinterpret_cast<float4*>(dq.data + outer * dq.outer_stride + inner * dq.head_stride +
                                             (first + row) * dq.query_stride + half * (kDim / 2));
  for (int n = 0; n < kVectors; n += kAhead) {
    float4 v[kAhead], old[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) v[j] = sums[(n + j) * kTile], old[j] = to[n + j];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      to[n + j] = make_float4(fmaf(v[j].x, scale, old[j].x), fmaf(v[j].y, scale, old[j].y),
                              fmaf(v[j].z, scale, old[j].z), fmaf(v[j].w, scale, old[j].w));
    }
  }
}

// To float it is added, bfloat16 is written.
template <typename To>
constexpr bool kAdds = std::is_same_v<To, float>;
__device__ void Put(float value, float* at) { *at = value; }
__device__ void Put(float value, __nv_bfloat16* at) { *at = __float2bfloat16_rn(value); }

// Of parts of 64 columns each that lie transposed: columns are queries.
template <typename To, int kTile, int kDim>
__global__ void __launch_bounds__(kThreads) PutTransposed(BackwardSums from, float scale, PerQuery dq) {
  constexpr int kPart = kTile * kDim / 2;
  constexpr int kVectors = kTile * kDim / 4 / kThreads;
  static_assert(kVectors * 4 * kThreads == kTile * kDim);
  const int64_t head = blockIdx.y, outer = head / from.heads, inner = head % from.heads;
  const int64_t first = int64_t{blockIdx.x} * kTile;
  const auto* sums = reinterpret_cast<const float4*>(from.sums + (head * from.padded + first) * kDim);
  To* const to = RowsOf<To>(dq, outer, inner);
  float4 v[kVectors], old[kVectors];
  To* at[kVectors][2];  // of two queries
#pragma unroll
  for (int n = 0; n < kVectors; ++n) v[n] = sums[threadIdx.x + n * kThreads];
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    const int i = threadIdx.x + n * kThreads;
    const int group = i / (kPart / 4), within = i % (kPart / 4), block = within / 128, thread = within % 128;
    const int d = 64 * group + 16 * (thread / 32) + thread % 32 / 4;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int64_t query = first + 8 * block + 2 * (thread % 4) + j;
      at[n][j] = query < from.queries ? to + query * dq.query_stride + d : nullptr;
    }
    old[n] = make_float4(0, 0, 0, 0);
    if constexpr (kAdds<To>) {
      old[n] = make_float4(at[n][0] ? at[n][0][0] : 0, at[n][1] ? at[n][1][0] : 0, at[n][0] ? at[n][0][8] : 0,
                           at[n][1] ? at[n][1][8] : 0);
    }
  }
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    if (at[n][0] != nullptr) {
      Put(fmaf(v[n].x, scale, old[n].x), at[n][0]);
      Put(fmaf(v[n].z, scale, old[n].z), at[n][0] + 8);
    }
    if (at[n][1] != nullptr) {
      Put(fmaf(v[n].y, scale, old[n].y), at[n][1]);
      Put(fmaf(v[n].w, scale, old[n].w), at[n][1] + 8);
    }
  }
}

__global__ void Fill(float* out, int64_t out_ld, int64_t out_cols, float* lse, int64_t lse_ld,
                     int64_t lse_cols) {
  const int64_t row = blockIdx.x;
  for (int64_t c = threadIdx.x; c < out_cols; c += kThreads) out[row * out_ld + c] = 0;
  for (int64_t c = threadIdx.x; c < lse_cols; c += kThreads) lse[row * lse_ld + c] = -INFINITY;
}

dim3 GridOf(const BackwardSums& s) {
  return dim3(static_cast<unsigned>(s.padded / s.tile_m), static_cast<unsigned>(s.outer * s.heads));
}

// SumOrder::kRegisters.
template <typename To, Parts kParts, int kTile, int kDim>
void PutTile(cudaStream_t stream, const BackwardSums& from, float scale, const PerQuery& dq) {
  if constexpr (kAdds<To>) {
    AddGradients<kParts, kTile, kDim><<<GridOf(from), kThreads, 0, stream>>>(from, scale, dq);
  } else {
    RoundGradients<kParts, kTile, kDim><<<GridOf(from), kThreads, 0, stream>>>(from, scale, dq);
  }
}
template <typename To>
cudaError_t PutQueryGradients(cudaStream_t stream, const BackwardSums& from, float scale,
                              const PerQuery& dq) {
  if (from.head_dim == 64 && from.tile_m == 128) {
    PutTile<To, Parts::kRows, 128, 64>(stream, from, scale, dq);
  } else if (from.head_dim == 96 && from.tile_m == 64) {
    PutTile<To, Parts::kOne, 64, 96>(stream, from, scale, dq);
  } else if (from.head_dim == 128 && from.tile_m == 64) {
    PutTile<To, Parts::kColumns, 64, 128>(stream, from, scale, dq);
  } else if (from.head_dim == 128 && from.tile_m == 80) {
    PutTransposed<To, 80, 128><<<GridOf(from), kThreads, 0, stream>>>(from, scale, dq);
  } else {
    return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t PrepareBackward(cudaStream_t stream, const PerQuery& lse, const PerQuery& delta,
                            const BackwardSums& to) {
  Prepare<<<GridOf(to), kThreads, 0, stream>>>(lse, delta, to);
  return cudaGetLastError();
}

cudaError_t AddQueryGradients(cudaStream_t stream, const BackwardSums& from, float scale,
                              const PerQuery& dq) {
  if (from.order == SumOrder::kRegisters) return PutQueryGradients<float>(stream, from, scale, dq);
  const dim3 grid = GridOf(from);
  if (from.tile_m != kThreads / 2) return cudaErrorInvalidValue;
  if (from.head_dim == 64) {
    AddRows<64><<<grid, kThreads, 0, stream>>>(from, scale, dq);
  } else if (from.head_dim == 96) {
    AddRows<96><<<grid, kThreads, 0, stream>>>(from, scale, dq);
  } else if (from.head_dim == 128) {
    AddRows<128><<<grid, kThreads, 0, stream>>>(from, scale, dq);
  } else {
    return cudaErrorInvalidValue;
  }
  return cudaGetLastError();
}

cudaError_t RoundQueryGradients(cudaStream_t stream, const BackwardSums& from, float scale,
                                const PerQuery& dq) {
  if (from.order != SumOrder::kRegisters) return cudaErrorInvalidValue;
  return PutQueryGradients<__nv_bfloat16>(stream, from, scale, dq);
}

cudaError_t FillUnseen(cudaStream_t stream, float* out, int64_t out_ld, int64_t out_cols, float* lse,
                       int64_t lse_ld, int64_t lse_cols, int64_t rows) {
  if (rows == 0) return cudaSuccess;
  Fill<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(out, out_ld, out_cols, lse, lse_ld, lse_cols);
  return cudaGetLastError();
}

}  // namespace seqpar::cuda
