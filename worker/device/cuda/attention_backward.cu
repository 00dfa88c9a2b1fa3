// The gradients of attention in true float32, by tiles in shared memory (attention_tiles.cuh).
//
// Without atomics, so that results do not depend on the order of blocks: one kernel owns key tiles (dK, dV)
// and walks over the queries that see them, another owns query tiles (dQ) and walks over keys. That costs 7
// products where 5 would do.
#include <cmath>

#include "worker/device/cuda/attention_tiles.cuh"

namespace seqpar::cuda {
namespace {

// p and ds of a tile: kM x kN scores a thread. Zero where the query does not see the key.
template <int kM, int kN>
__device__ void ScoreGradients(float (&s)[kM][kN], float (&dp)[kM][kN], const float (&lse)[kM],
                               const float (&delta)[kM], const int (&lo)[kM], const int (&hi)[kM],
                               int64_t first_key, int x) {
#pragma unroll
  for (int i = 0; i < kM; ++i) {
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      const int64_t key = first_key + x + kSide * j;
      const bool seen = key >= lo[i] && key < hi[i];
      s[i][j] = seen ? exp2f(s[i][j] - lse[i]) : 0.0f;
      dp[i][j] = seen ? s[i][j] * (dp[i][j] - delta[i]) : 0.0f;
    }
  }
}

// What a thread's rows of a query tile need.
template <int kM>
struct QueryRows {
  int lo[kM], hi[kM];
  float lse[kM], delta[kM];
  __device__ void Read(const Tile& t, const View& all_lse, const View& all_delta, int64_t first, int y,
                       int64_t index, int head) {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
      const int64_t query = first + y + kSide * i;
      const bool there = query < t.queries;
      lo[i] = there ? t.lo[query] : 0;
      hi[i] = there ? t.hi[query] : 0;
      const int64_t row = (there ? query : 0) * t.batch + index;
      const float natural = static_cast<const float*>(all_lse.data)[row * all_lse.ld + head];
      lse[i] = natural == -INFINITY ? 0.0f : natural * kLog2E;  // sees no key at all: nothing will ask
      delta[i] = static_cast<const float*>(all_delta.data)[row * all_delta.ld + head];
    }
  }
};

template <int kDim>
constexpr int BackwardFloats() {
  constexpr int large = Shape<kDim>::kLarge, small = Shape<kDim>::kSmall;
  return 2 * (large + small) * Pitch(kDim) + 2 * large * Pitch(small);
}

template <int kRows, int kDim>
__device__ void AddToRows(const float (&sum)[kRows / kSide][kDim / kSide], const View& to, const Tile& t,
                          int64_t first, int64_t tokens, int64_t index, int head, float factor, int y,
                          int x) {
#pragma unroll
  for (int i = 0; i < kRows / kSide; ++i) {
    const int64_t token = first + y + kSide * i;
    if (token >= tokens) continue;
    float* row =
        static_cast<float*>(to.data) + (token * t.batch + index) * to.ld + int64_t{head} * t.head_dim;
#pragma unroll
    for (int g = 0; g < kDim / 64; ++g) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int d = 4 * x + 64 * g + c;
        if (d < t.head_dim) row[d] += sum[i][4 * g + c] * factor;
      }
    }
  }
}

template <int kDim, typename T>
__global__ void __launch_bounds__(kThreads)
    BackwardKeys(Tile t, View dout, View lse, View delta, View dk, View dv) {
  constexpr int kKeys = Shape<kDim>::kLarge, kQueries = Shape<kDim>::kSmall;
  constexpr int kM = kQueries / kSide, kN = kKeys / kSide;
  extern __shared__ float4 storage[];
  float* k_tile = reinterpret_cast<float*>(storage);
  float* v_tile = k_tile + kKeys * Pitch(kDim);
  float* q_tile = v_tile + kKeys * Pitch(kDim);
  float* do_tile = q_tile + kQueries * Pitch(kDim);
  float* p_tile = do_tile + kQueries * Pitch(kDim);  // [key][query]
  float* ds_tile = p_tile + kKeys * Pitch(kQueries);
  const int y = threadIdx.x / kSide, x = threadIdx.x % kSide;
  const int kv_head = blockIdx.y;
  const int64_t index = blockIdx.z, first_key = int64_t{blockIdx.x} * kKeys;
  LoadTile<kKeys, kDim>(HeadOf<const T>(t.k, t.batch, index, kv_head, t.head_dim), first_key, t.keys,
                        t.head_dim, 1.0f, k_tile);
  LoadTile<kKeys, kDim>(HeadOf<const T>(t.v, t.batch, index, kv_head, t.head_dim), first_key, t.keys,
                        t.head_dim, 1.0f, v_tile);
  float dk_sum[kN][kDim / kSide] = {}, dv_sum[kN][kDim / kSide] = {};
  const Range queries = QueriesOf(t, first_key, kKeys);
  const int global_kv = t.first_kv_head + kv_head;
  const int head_begin = max(global_kv * t.group - t.first_q_head, 0);
  const int head_end = min((global_kv + 1) * t.group - t.first_q_head, t.q_heads);
  for (int head = head_begin; head < head_end; ++head) {
    const auto q = HeadOf<const T>(t.q, t.batch, index, head, t.head_dim);
    const auto d_out = HeadOf<const T>(dout, t.batch, index, head, t.head_dim);
    for (int64_t query = queries.begin / kQueries * kQueries; query < queries.end; query += kQueries) {
      __syncthreads();
      LoadTile<kQueries, kDim>(q, query, t.queries, t.head_dim, 1.0f, q_tile);
      LoadTile<kQueries, kDim>(d_out, query, t.queries, t.head_dim, 1.0f, do_tile);
      QueryRows<kM> rows;
      rows.Read(t, lse, delta, query, y, index, head);
      __syncthreads();
      float s[kM][kN], dp[kM][kN];
      Products<kM, kN, kDim>(q_tile, k_tile, y, x, s);
      Products<kM, kN, kDim>(do_tile, v_tile, y, x, dp);
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int j = 0; j < kN; ++j) s[i][j] *= t.scale * kLog2E;
      }
      ScoreGradients<kM, kN>(s, dp, rows.lse, rows.delta, rows.lo, rows.hi, first_key, x);
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          p_tile[(x + kSide * j) * Pitch(kQueries) + y + kSide * i] = s[i][j];
          ds_tile[(x + kSide * j) * Pitch(kQueries) + y + kSide * i] = dp[i][j];
        }
      }
      __syncthreads();
      Accumulate<kN, kQueries, kDim>(p_tile, do_tile, y, x, dv_sum);
      Accumulate<kN, kQueries, kDim>(ds_tile, q_tile, y, x, dk_sum);
    }
  }
  AddToRows<kKeys, kDim>(dk_sum, dk, t, first_key, t.keys, index, kv_head, t.scale, y, x);
  AddToRows<kKeys, kDim>(dv_sum, dv, t, first_key, t.keys, index, kv_head, 1.0f, y, x);
}

template <int kDim, typename T>
__global__ void __launch_bounds__(kThreads)
    BackwardQueries(Tile t, View dout, View lse, View delta, View dq) {
  constexpr int kQueries = Shape<kDim>::kLarge, kKeys = Shape<kDim>::kSmall;
  constexpr int kM = kQueries / kSide, kN = kKeys / kSide;
  extern __shared__ float4 storage[];
  float* q_tile = reinterpret_cast<float*>(storage);
  float* do_tile = q_tile + kQueries * Pitch(kDim);
  float* k_tile = do_tile + kQueries * Pitch(kDim);
  float* v_tile = k_tile + kKeys * Pitch(kDim);
  float* ds_tile = v_tile + kKeys * Pitch(kDim);  // [query][key]
  const int y = threadIdx.x / kSide, x = threadIdx.x % kSide;
  const int head = blockIdx.y;
  const int64_t index = blockIdx.z, first_query = int64_t{gridDim.x - 1 - blockIdx.x} * kQueries;
  const int kv_head = (t.first_q_head + head) / t.group - t.first_kv_head;
  const auto k = HeadOf<const T>(t.k, t.batch, index, kv_head, t.head_dim);
  const auto v = HeadOf<const T>(t.v, t.batch, index, kv_head, t.head_dim);
  LoadTile<kQueries, kDim>(HeadOf<const T>(t.q, t.batch, index, head, t.head_dim), first_query, t.queries,
                           t.head_dim, 1.0f, q_tile);
  LoadTile<kQueries, kDim>(HeadOf<const T>(dout, t.batch, index, head, t.head_dim), first_query, t.queries,
                           t.head_dim, 1.0f, do_tile);
  QueryRows<kM> rows;
  rows.Read(t, lse, delta, first_query, y, index, head);
  float dq_sum[kM][kDim / kSide] = {};
  const Range keys = KeysOf(t, first_query, kQueries);
  for (int64_t key = keys.begin / kKeys * kKeys; key < keys.end; key += kKeys) {
    __syncthreads();
    LoadTile<kKeys, kDim>(k, key, t.keys, t.head_dim, 1.0f, k_tile);
    LoadTile<kKeys, kDim>(v, key, t.keys, t.head_dim, 1.0f, v_tile);
    __syncthreads();
    float s[kM][kN], dp[kM][kN];
    Products<kM, kN, kDim>(q_tile, k_tile, y, x, s);
    Products<kM, kN, kDim>(do_tile, v_tile, y, x, dp);
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) s[i][j] *= t.scale * kLog2E;
    }
    ScoreGradients<kM, kN>(s, dp, rows.lse, rows.delta, rows.lo, rows.hi, key, x);
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) ds_tile[(y + kSide * i) * Pitch(kKeys) + x + kSide * j] = dp[i][j];
    }
    __syncthreads();
    Accumulate<kM, kKeys, kDim>(ds_tile, k_tile, y, x, dq_sum);
  }
  AddToRows<kQueries, kDim>(dq_sum, dq, t, first_query, t.queries, index, head, t.scale, y, x);
}

template <int kDim, typename T>
cudaError_t LaunchBackward(cudaStream_t stream, const Tile& t, const View& dout, const View& lse,
                           const View& delta, const View& dq, const View& dk, const View& dv) {
  constexpr int floats = BackwardFloats<kDim>(), rows = Shape<kDim>::kLarge;
  cudaError_t error = Prepare(BackwardKeys<kDim, T>, floats);
  if (error == cudaSuccess) error = Prepare(BackwardQueries<kDim, T>, floats);
  if (error != cudaSuccess) return error;
  const auto batch = static_cast<unsigned>(t.batch);
  const dim3 by_key(static_cast<unsigned>(Tiles(t.keys, rows)), t.kv_heads, batch);
  const dim3 by_query(static_cast<unsigned>(Tiles(t.queries, rows)), t.q_heads, batch);
  BackwardKeys<kDim, T><<<by_key, kThreads, floats * 4, stream>>>(t, dout, lse, delta, dk, dv);
  BackwardQueries<kDim, T><<<by_query, kThreads, floats * 4, stream>>>(t, dout, lse, delta, dq);
  return cudaGetLastError();
}

}  // namespace

cudaError_t AttentionBackward(cudaStream_t stream, const Tile& t, const View& dout, const View& lse,
                              const View& delta, const View& dq, const View& dk, const View& dv) {
  if (t.queries == 0 || t.keys == 0 || t.q_heads == 0) return cudaSuccess;
  return Dispatch(t, [&]<int kDim, typename T>() {
    return LaunchBackward<kDim, T>(stream, t, dout, lse, delta, dq, dk, dv);
  });
}

}  // namespace seqpar::cuda
