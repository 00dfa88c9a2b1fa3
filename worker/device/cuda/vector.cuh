// Loads and stores of several neighbouring elements as float32, whatever the storage type.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_VECTOR_CUH_
#define SEQPAR_WORKER_DEVICE_CUDA_VECTOR_CUH_

#include <cuda_bf16.h>

#include <cstdint>

#include "worker/device/cuda/kernels.h"

namespace seqpar::cuda {

__device__ inline float Load(const float* p) { return *p; }
__device__ inline float Load(const __nv_bfloat16* p) { return __bfloat162float(*p); }
__device__ inline void Store(float value, float* p) { *p = value; }
__device__ inline void Store(float value, __nv_bfloat16* p) { *p = __float2bfloat16_rn(value); }

// kWidth elements: 1 (any alignment) or 8 (aligned to 8 elements).
template <int kWidth>
struct Pack {
  float x[kWidth];
};

template <int kWidth>
__device__ inline Pack<kWidth> LoadPack(const float* p) {
  Pack<kWidth> v;
  if constexpr (kWidth == 1) {
    v.x[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(p + i);
      v.x[i] = four.x, v.x[i + 1] = four.y, v.x[i + 2] = four.z, v.x[i + 3] = four.w;
    }
  }
  return v;
}
template <int kWidth>
__device__ inline Pack<kWidth> LoadPack(const __nv_bfloat16* p) {
  Pack<kWidth> v;
  if constexpr (kWidth == 1) {
    v.x[0] = __bfloat162float(*p);
  } else {
    static_assert(kWidth == 8);
    const uint4 raw = *reinterpret_cast<const uint4*>(p);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v.x[2 * i] = __uint_as_float(words[i] << 16);
      v.x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
  return v;
}
template <int kWidth>
__device__ inline void StorePack(const Pack<kWidth>& v, float* p) {
  if constexpr (kWidth == 1) {
    *p = v.x[0];
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; i += 4) {
      *reinterpret_cast<float4*>(p + i) = make_float4(v.x[i], v.x[i + 1], v.x[i + 2], v.x[i + 3]);
    }
  }
}
template <int kWidth>
__device__ inline void StorePack(const Pack<kWidth>& v, __nv_bfloat16* p) {
  if constexpr (kWidth == 1) {
    *p = __float2bfloat16_rn(v.x[0]);
  } else {
    static_assert(kWidth == 8);
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 two = __floats2bfloat162_rn(v.x[2 * i], v.x[2 * i + 1]);
      words[i] = *reinterpret_cast<const uint32_t*>(&two);
    }
    *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// The same for an element of a matrix whose type is known at run time only.
template <int kWidth>
__device__ inline Pack<kWidth> LoadAt(const View& m, int64_t row, int64_t col) {
  return m.type == Type::kF32
             ? LoadPack<kWidth>(static_cast<const float*>(m.data) + row * m.ld + col)
             : LoadPack<kWidth>(static_cast<const __nv_bfloat16*>(m.data) + row * m.ld + col);
}
template <int kWidth>
__device__ inline void StoreAt(const Pack<kWidth>& v, const View& m, int64_t row, int64_t col) {
  if (m.type == Type::kF32) {
    StorePack<kWidth>(v, static_cast<float*>(m.data) + row * m.ld + col);
  } else {
    StorePack<kWidth>(v, static_cast<__nv_bfloat16*>(m.data) + row * m.ld + col);
  }
}

// Whether a matrix can be read 8 elements at a time.
inline bool Wide(const View& m) {
  return m.cols % 8 == 0 && m.ld % 8 == 0 && reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
}

// Sums over the threads of a block; every thread gets the result. The order is fixed. `shared`: 32 floats.
__device__ inline float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}
__device__ inline float BlockSum(float value, float* shared) {
  value = WarpSum(value);
  const int warps = (blockDim.x + 31) / 32;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = threadIdx.x % 32 < warps ? shared[threadIdx.x % 32] : 0.0f;
  sum = WarpSum(sum);
  __syncthreads();
  return sum;
}

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_VECTOR_CUH_
