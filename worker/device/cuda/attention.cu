// Attention in true float32, by tiles in shared memory: the kernel that runs where no faster one serves, and
// that every faster one is compared with.
//
// Nomenclature: a block of threads is a square of 16 x 16; thread (y, x) owns rows y, y + 16, ... of a tile.
// Tiles lie in shared memory row by row, each row padded by four floats: 16 neighbouring rows read at one
// column, or one row read at 16 neighbouring quadruples, touch every bank once.
//
// Forward, a block a (query tile, head): for each key tile S = Q K^T, online softmax in units of log2, O += P
// V. Backward without atomics, so that results do not depend on the order of blocks: one kernel owns key
// tiles (dK, dV) and walks over the queries that see them, another owns query tiles (dQ) and walks over keys.
// That costs 7 products where 5 would do.
#include <algorithm>
#include <cmath>

#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/vector.cuh"

namespace seqpar::cuda {
namespace {

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
__device__ Range KeysOf(const Tile& t, int64_t first, int rows) {
  const int64_t last = min(t.queries, first + rows) - 1;
  return {max(t.lo[first], 0), min(int64_t{t.hi[last]}, t.keys)};
}
// The queries that see a key of [first, first + rows).
__device__ Range QueriesOf(const Tile& t, int64_t first, int rows) {
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

// ---- forward ----

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

// ---- backward ----

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
// lie in memory, kStagedCols at a time.
constexpr int kStagedCols = 64, kStagedPitch = kStagedCols + 1, kStagedWarps = 2;
__global__ void __launch_bounds__(32 * kStagedWarps)
    DeltaStaged(int head_dim, View dout, View out, View delta) {
  __shared__ float staged[kStagedWarps][2][32 * kStagedPitch];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t items = delta.rows * delta.cols, first = (int64_t{blockIdx.x} * kStagedWarps + warp) * 32;
  float* const left = staged[warp][0];
  float* const right = staged[warp][1];
  float sum = 0;
  for (int from = 0; from < head_dim; from += kStagedCols) {
    const int col = lane % 8 * 8;
#pragma unroll
    for (int pass = 0; pass < 8; ++pass) {
      const int local = pass * 4 + lane / 8;
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

template <typename Kernel>
cudaError_t Prepare(Kernel kernel, int floats) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, floats * 4);
}

int64_t Tiles(int64_t tokens, int rows) { return (tokens + rows - 1) / rows; }

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

}  // namespace

cudaError_t AttentionForward(cudaStream_t stream, const Tile& t, const View& out, const View& lse,
                             bool first) {
  if (t.queries == 0 || t.q_heads == 0) return cudaSuccess;
  return Dispatch(t,
                  [&]<int kDim, typename T>() { return LaunchForward<kDim, T>(stream, t, out, lse, first); });
}

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

cudaError_t AttentionBackward(cudaStream_t stream, const Tile& t, const View& dout, const View& lse,
                              const View& delta, const View& dq, const View& dk, const View& dv) {
  if (t.queries == 0 || t.keys == 0 || t.q_heads == 0) return cudaSuccess;
  return Dispatch(t, [&]<int kDim, typename T>() {
    return LaunchBackward<kDim, T>(stream, t, dout, lse, delta, dq, dk, dv);
  });
}

}  // namespace seqpar::cuda
