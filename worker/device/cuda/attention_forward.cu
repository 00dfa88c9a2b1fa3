// Attention in true float32, by tiles in shared memory (attention_tiles.cuh): the kernel that runs where no
// faster one serves, and that every faster one is compared with.
//
// A block a (query tile, head): for each key tile S = Q K^T, online softmax in units of log2, O += P V.
#include <cmath>

#include "worker/device/cuda/attention_tiles.cuh"

namespace seqpar::cuda {
namespace {

template <int kDim>
constexpr int ForwardFloats() {
  constexpr int rows = Shape<kDim>::kLarge;
  return 3 * rows * Pitch(kDim);  // Q; K, then P; V
}

// Merges a finished row into what is held: averages weighted by exp(lse), relative to the larger one.
template <int kValues>
__device__ void MergeRow(float (&o)[kValues], float max, float sum, float* out, float* lse, bool first, int x,
                         int head_dim) {
  const bool empty = sum == 0;  // NaN is not empty: it shows
  if (empty && !first) return;
  const float mine = max * kLn2 + logf(sum), held = first ? -INFINITY : *lse;
  const bool alone = held == -INFINITY;
  const float top = empty || alone ? mine : fmaxf(mine, held);
  const float held_weight = alone ? 0.0f : expf(held - top),
              my_weight = empty || alone ? 1.0f : expf(mine - top);
  const float total = held_weight + my_weight;
  const float keep = held_weight / total, add = my_weight / total / sum;
#pragma unroll
  for (int g = 0; g < kValues / 4; ++g) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int d = 4 * x + 64 * g + c;
      if (d >= head_dim) continue;
      const float before = alone ? 0.0f : out[d] * keep;
      out[d] = empty ? 0.0f : before + o[4 * g + c] * add;
    }
  }
  // The row's 16 threads, half a warp, have all read the held lse.
  __syncwarp(0xffffu << (threadIdx.x & 16));
  if (x == 0) *lse = empty ? -INFINITY : alone ? mine : top + logf(total);
}

template <int kDim, typename T>
__global__ void __launch_bounds__(kThreads) Forward(Tile t, View out, View lse, bool first) {
  constexpr int kRows = Shape<kDim>::kLarge, kM = kRows / kSide;
  static_assert(Pitch(kRows) <= Pitch(kDim));
  extern __shared__ float4 storage[];
  float* q_tile = reinterpret_cast<float*>(storage);
  float* k_tile = q_tile + kRows * Pitch(kDim);
  float* v_tile = k_tile + kRows * Pitch(kDim);
  float* p_tile = k_tile;  // once the scores are known K is not needed
  const int y = threadIdx.x / kSide, x = threadIdx.x % kSide;
  const int head = blockIdx.y;
  const int64_t index = blockIdx.z;
  // Last tiles first: under a causal mask they take longest.
  const int64_t first_query = int64_t{gridDim.x - 1 - blockIdx.x} * kRows;
  const int kv_head = (t.first_q_head + head) / t.group - t.first_kv_head;
  const auto k = HeadOf<const T>(t.k, t.batch, index, kv_head, t.head_dim);
  const auto v = HeadOf<const T>(t.v, t.batch, index, kv_head, t.head_dim);
  LoadTile<kRows, kDim>(HeadOf<const T>(t.q, t.batch, index, head, t.head_dim), first_query, t.queries,
                        t.head_dim, t.scale * kLog2E, q_tile);
  int lo[kM], hi[kM];
  float max[kM], sum[kM], o[kM][kDim / kSide];
#pragma unroll
  for (int i = 0; i < kM; ++i) {
    const int64_t query = first_query + y + kSide * i;
    lo[i] = query < t.queries ? t.lo[query] : 0;
    hi[i] = query < t.queries ? t.hi[query] : 0;
    max[i] = -INFINITY;
    sum[i] = 0;
#pragma unroll
    for (int c = 0; c < kDim / kSide; ++c) o[i][c] = 0;
  }
  const Range keys = KeysOf(t, first_query, kRows);
  for (int64_t key = keys.begin / kRows * kRows; key < keys.end; key += kRows) {
    __syncthreads();
    LoadTile<kRows, kDim>(k, key, t.keys, t.head_dim, 1.0f, k_tile);
    LoadTile<kRows, kDim>(v, key, t.keys, t.head_dim, 1.0f, v_tile);
    __syncthreads();
    float s[kM][kM];
    Products<kM, kM, kDim>(q_tile, k_tile, y, x, s);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kM; ++i) {
      float top = max[i];
#pragma unroll
      for (int j = 0; j < kM; ++j) {
        const int64_t column = key + x + kSide * j;
        if (column < lo[i] || column >= hi[i]) s[i][j] = -INFINITY;
        top = fmaxf(top, s[i][j]);
      }
      top = RowMax(top);
      const float base = top == -INFINITY ? 0.0f : top;
      const float shrink = exp2f(max[i] - base);
      max[i] = top;
      float added = 0;
#pragma unroll
      for (int j = 0; j < kM; ++j) {
        const float p = exp2f(s[i][j] - base);
        added += p;
        p_tile[(y + kSide * i) * Pitch(kRows) + x + kSide * j] = p;
      }
      sum[i] = sum[i] * shrink + RowSum(added);
#pragma unroll
      for (int c = 0; c < kDim / kSide; ++c) o[i][c] *= shrink;
    }
    __syncthreads();
    Accumulate<kM, kRows, kDim>(p_tile, v_tile, y, x, o);
  }
#pragma unroll
  for (int i = 0; i < kM; ++i) {
    const int64_t query = first_query + y + kSide * i;
    const int64_t row = min(query, t.queries - 1) * t.batch + index;
    float* out_row = static_cast<float*>(out.data) + row * out.ld + int64_t{head} * t.head_dim;
    float* lse_at = static_cast<float*>(lse.data) + row * lse.ld + head;
    if (query < t.queries) MergeRow(o[i], max[i], sum[i], out_row, lse_at, first, x, t.head_dim);
  }
}

template <int kDim, typename T>
cudaError_t LaunchForward(cudaStream_t stream, const Tile& t, const View& out, const View& lse, bool first) {
  constexpr int floats = ForwardFloats<kDim>();
  const cudaError_t error = Prepare(Forward<kDim, T>, floats);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(Tiles(t.queries, Shape<kDim>::kLarge)), t.q_heads,
                  static_cast<unsigned>(t.batch));
  Forward<kDim, T><<<grid, kThreads, floats * 4, stream>>>(t, out, lse, first);
  return cudaGetLastError();
}

}  // namespace

cudaError_t AttentionForward(cudaStream_t stream, const Tile& t, const View& out, const View& lse,
                             bool first) {
  if (t.queries == 0 || t.q_heads == 0) return cudaSuccess;
  return Dispatch(t,
                  [&]<int kDim, typename T>() { return LaunchForward<kDim, T>(stream, t, out, lse, first); });
}

}  // namespace seqpar::cuda
