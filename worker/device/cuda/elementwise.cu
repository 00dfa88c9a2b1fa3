// Kernels that read each element once and write it once: copies, sums, activations, rotary embedding.
#include <algorithm>

#include "common/device/cuda_scratch.h"
#include "worker/device/cuda/kernels.h"
#include "worker/device/cuda/vector.cuh"

namespace seqpar::cuda {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(int64_t items) {
  // Grid-stride loops: enough blocks to fill any GPU, few enough to fit the grid.
  return static_cast<unsigned>(std::clamp<int64_t>((items + kThreads - 1) / kThreads, 1, 1 << 16));
}

// Calls fn(row, col) for each pack of kWidth columns of a matrix of `rows` by `cols`.
template <int kWidth, typename Fn>
__global__ void ForEachPack(int64_t rows, int64_t cols, Fn fn) {
  const int64_t packs = cols / kWidth, total = rows * packs;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < total;
       i += int64_t{gridDim.x} * kThreads) {
    fn(i / packs, i % packs * kWidth);
  }
}

template <int kWidth, typename Fn>
cudaError_t Launch(cudaStream_t stream, int64_t rows, int64_t cols, Fn fn) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  ForEachPack<kWidth><<<Blocks(rows * (cols / kWidth)), kThreads, 0, stream>>>(rows, cols, fn);
  return cudaGetLastError();
}

struct Term {
  const void* data;
  int64_t ld;
  Type type;
};
template <int kTerms>
struct Terms {
  Term term[kTerms];
  int count;
};

template <int kWidth, int kTerms>
struct SumFn {
  Terms<kTerms> terms;
  View to;
  __device__ void operator()(int64_t row, int64_t col) const {
    Pack<kWidth> sum = Read(0, row, col);
    for (int t = 1; t < terms.count; ++t) {
      const Pack<kWidth> next = Read(t, row, col);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum.x[i] += next.x[i];
    }
    StoreAt<kWidth>(sum, to, row, col);
  }
  __device__ Pack<kWidth> Read(int t, int64_t row, int64_t col) const {
    const Term& term = terms.term[t];
    return LoadAt<kWidth>(View{const_cast<void*>(term.data), term.type, 0, 0, term.ld}, row, col);
  }
};

template <int kTerms>
cudaError_t LaunchSum(cudaStream_t stream, const View* terms, int count, const View& to) {
  Terms<kTerms> list;
  list.count = count;
  bool wide = Wide(to);
  for (int i = 0; i < count; ++i) {
    list.term[i] = {terms[i].data, terms[i].ld, terms[i].type};
    wide = wide && Wide(terms[i]);
  }
  return wide ? Launch<8>(stream, to.rows, to.cols, SumFn<8, kTerms>{list, to})
              : Launch<1>(stream, to.rows, to.cols, SumFn<1, kTerms>{list, to});
}

// gelu, erf form and tanh approximation, and silu, with their derivatives; what is not used is not computed.
struct Activated {
  float value, slope;
};
__device__ Activated Gelu(float x) {
  const float below = 0.5f * (1.0f + erff(x * 0.70710678118654752f));
  return {x * below, below + x * 0.39894228040143268f * expf(-0.5f * x * x)};
}
__device__ Activated GeluTanh(float x) {
  constexpr float kScale = 0.79788456080286536f, kCubic = 0.044715f;
  // Beyond, the slope is 0 or 1, and x * x would overflow further out. NaN stays NaN.
  const float near = x < -20.0f ? -20.0f : x > 20.0f ? 20.0f : x;
  const float t = tanhf(kScale * (near + kCubic * near * near * near)), below = 0.5f * (1.0f + t);
  const float inner_slope = kScale * (1.0f + 3.0f * kCubic * near * near);
  return {x * below, below + 0.5f * near * (1.0f - t * t) * inner_slope};
}
__device__ Activated Silu(float x) {
  const float s = 1.0f / (1.0f + expf(-x));
  return {x * s, s * (1.0f + x * (1.0f - s))};
}

template <Activation kKind>
__device__ Activated Activate(float x) {
  if constexpr (kKind == Activation::kGelu) return Gelu(x);
  if constexpr (kKind == Activation::kGeluTanh) return GeluTanh(x);
  if constexpr (kKind == Activation::kSwiglu) return Silu(x);
}

template <int kWidth, Activation kKind>
struct ActivationFn {
  View gate, up, y;
  __device__ void operator()(int64_t row, int64_t col) const {
    Pack<kWidth> u = LoadAt<kWidth>(up, row, col), g;
    if constexpr (kKind == Activation::kSwiglu) g = LoadAt<kWidth>(gate, row, col);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if constexpr (kKind == Activation::kSwiglu) {
        u.x[i] = Activate<kKind>(g.x[i]).value * u.x[i];
      } else {
        u.x[i] = Activate<kKind>(u.x[i]).value;
      }
    }
    StoreAt<kWidth>(u, y, row, col);
  }
};

template <int kWidth, Activation kKind>
struct ActivationGradFn {
  View gate, up, dy, dgate, dup, y;  // y.data null: not wanted
  __device__ void operator()(int64_t row, int64_t col) const {
    Pack<kWidth> u = LoadAt<kWidth>(up, row, col), d = LoadAt<kWidth>(dy, row, col), g, activated;
    if constexpr (kKind == Activation::kSwiglu) g = LoadAt<kWidth>(gate, row, col);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if constexpr (kKind == Activation::kSwiglu) {
        const Activated f = Activate<kKind>(g.x[i]);
        activated.x[i] = f.value * u.x[i];
        g.x[i] = d.x[i] * u.x[i] * f.slope;
        u.x[i] = d.x[i] * f.value;
      } else {
        const Activated f = Activate<kKind>(u.x[i]);
        activated.x[i] = f.value;
        u.x[i] = d.x[i] * f.slope;
      }
    }
    if (y.data != nullptr) StoreAt<kWidth>(activated, y, row, col);
    if constexpr (kKind == Activation::kSwiglu) StoreAt<kWidth>(g, dgate, row, col);
    StoreAt<kWidth>(u, dup, row, col);
  }
};

template <int kWidth>
struct RotaryFn {  // rows by heads * half
  View x;
  int64_t batch;
  int half;
  const float* table;
  float sign;
  __device__ void operator()(int64_t row, int64_t col) const {
    const int64_t at = col / half * 2 * half + col % half;
    const float* cosines = table + row / batch * 2 * half + col % half;
    Pack<kWidth> a = LoadAt<kWidth>(x, row, at), b = LoadAt<kWidth>(x, row, at + half);
    const Pack<kWidth> c = LoadPack<kWidth>(cosines), s = LoadPack<kWidth>(cosines + half);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const float sine = sign * s.x[i], a0 = a.x[i], b0 = b.x[i];
      a.x[i] = a0 * c.x[i] - b0 * sine;
      b.x[i] = b0 * c.x[i] + a0 * sine;
    }
    StoreAt<kWidth>(a, x, row, at);
    StoreAt<kWidth>(b, x, row, at + half);
  }
};

// Rows that one block of the first pass of a column sum adds up.
constexpr int64_t kSumRows = kCudaColumnSumRows;

// partial[block][col] = sum of the block's rows.
__global__ void PartialColumnSums(View x, float* partial) {
  const int64_t col = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (col >= x.cols) return;
  const int64_t begin = blockIdx.y * kSumRows, end = min(x.rows, begin + kSumRows);
  double sum = 0;  // long columns keep their digits; the loads are what takes the time
  for (int64_t row = begin; row < end; ++row) sum += LoadAt<1>(x, row, col).x[0];
  partial[blockIdx.y * x.cols + col] = static_cast<float>(sum);
}

__global__ void FinishColumnSums(const float* partial, int64_t blocks, int64_t cols, float* sums) {
  const int64_t col = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (col >= cols) return;
  double sum = sums[col];
  for (int64_t b = 0; b < blocks; ++b) sum += partial[b * cols + col];
  sums[col] = static_cast<float>(sum);
}

template <int kWidth>
struct AddRowFn {
  View row, to;
  __device__ void operator()(int64_t at, int64_t col) const {
    Pack<kWidth> v = LoadAt<kWidth>(to, at, col);
    const Pack<kWidth> r = LoadAt<kWidth>(row, 0, col);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v.x[i] += r.x[i];
    StoreAt<kWidth>(v, to, at, col);
  }
};

constexpr int kPiecesMax = 256;
struct PieceTable {
  Piece from[kPiecesMax], to[kPiecesMax];
  int64_t from_begin[kPiecesMax], to_begin[kPiecesMax];  // of each piece in the whole
  int from_count, to_count;
  int64_t bytes;
};

__device__ int Find(const int64_t* begins, int count, int64_t at) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (begins[middle] <= at)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

template <typename Word>
__global__ void CopyPiecesKernel(const __grid_constant__ PieceTable table) {
  const int64_t words = table.bytes / static_cast<int64_t>(sizeof(Word));
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < words;
       i += int64_t{gridDim.x} * kThreads) {
    const int64_t at = i * static_cast<int64_t>(sizeof(Word));
    const int f = Find(table.from_begin, table.from_count, at), t = Find(table.to_begin, table.to_count, at);
    *reinterpret_cast<Word*>(table.to[t].data + (at - table.to_begin[t])) =
        *reinterpret_cast<const Word*>(table.from[f].data + (at - table.from_begin[f]));
  }
}

bool Aligned(const Piece* pieces, int count, int64_t to) {
  for (int i = 0; i < count; ++i) {
    if (reinterpret_cast<uintptr_t>(pieces[i].data) % to != 0 || pieces[i].bytes % to != 0) return false;
  }
  return true;
}

}  // namespace

cudaError_t Copy(cudaStream_t stream, const View& from, const View& to) {
  return LaunchSum<1>(stream, &from, 1, to);
}

cudaError_t SumInOrder(cudaStream_t stream, const View* terms, int count, const View& to) {
  return count <= 8 ? LaunchSum<8>(stream, terms, count, to)
                    : LaunchSum<kSumTermsMax>(stream, terms, count, to);
}

cudaError_t AddColumnSums(cudaStream_t stream, const View& x, float* partial, float* sums) {
  if (x.rows == 0 || x.cols == 0) return cudaSuccess;
  const unsigned across = static_cast<unsigned>((x.cols + kThreads - 1) / kThreads);
  const int64_t blocks = (x.rows + kSumRows - 1) / kSumRows;
  PartialColumnSums<<<dim3(across, static_cast<unsigned>(blocks)), kThreads, 0, stream>>>(x, partial);
  FinishColumnSums<<<across, kThreads, 0, stream>>>(partial, blocks, x.cols, sums);
  return cudaGetLastError();
}

cudaError_t AddRow(cudaStream_t stream, const View& row, const View& to) {
  return Wide(row) && Wide(to) ? Launch<8>(stream, to.rows, to.cols, AddRowFn<8>{row, to})
                               : Launch<1>(stream, to.rows, to.cols, AddRowFn<1>{row, to});
}

cudaError_t CopyPieces(cudaStream_t stream, const Piece* from, int from_count, const Piece* to,
                       int to_count) {
  // Many pieces: several launches, cut where both lists have been used up to the same byte.
  int f = 0, t = 0;
  int64_t from_used = 0, to_used = 0;  // of from[f] and to[t]
  while (f < from_count && t < to_count) {
    PieceTable table{};
    int64_t from_bytes = 0, to_bytes = 0;
    int f_end = f, t_end = t;
    int64_t f_used = from_used, t_used = to_used;
    while (f_end < from_count && table.from_count < kPiecesMax) {
      table.from_begin[table.from_count] = from_bytes;
      table.from[table.from_count++] = {from[f_end].data + f_used, from[f_end].bytes - f_used};
      from_bytes += from[f_end].bytes - f_used;
      f_used = 0;
      ++f_end;
    }
    while (t_end < to_count && table.to_count < kPiecesMax) {
      table.to_begin[table.to_count] = to_bytes;
      table.to[table.to_count++] = {to[t_end].data + t_used, to[t_end].bytes - t_used};
      to_bytes += to[t_end].bytes - t_used;
      t_used = 0;
      ++t_end;
    }
    table.bytes = std::min(from_bytes, to_bytes);
    if (table.bytes > 0) {
      if (Aligned(table.from, table.from_count, 16) && Aligned(table.to, table.to_count, 16)) {
        CopyPiecesKernel<uint4><<<Blocks(table.bytes / 16), kThreads, 0, stream>>>(table);
      } else if (Aligned(table.from, table.from_count, 2) && Aligned(table.to, table.to_count, 2)) {
        CopyPiecesKernel<uint16_t><<<Blocks(table.bytes / 2), kThreads, 0, stream>>>(table);
      } else {
        CopyPiecesKernel<uint8_t><<<Blocks(table.bytes), kThreads, 0, stream>>>(table);
      }
    }
    // Both lists move on by table.bytes.
    const auto advance = [](const Piece* list, int count, int* at, int64_t* used, int64_t bytes) {
      while (*at < count && bytes >= list[*at].bytes - *used) {
        bytes -= list[*at].bytes - *used;
        *used = 0;
        ++*at;
      }
      if (*at < count) *used += bytes;
    };
    advance(from, from_count, &f, &from_used, table.bytes);
    advance(to, to_count, &t, &to_used, table.bytes);
    if (table.bytes == 0) break;
  }
  return cudaGetLastError();
}

namespace {

template <template <int, Activation> class Fn, int kWidth, typename... Views>
cudaError_t LaunchActivation(cudaStream_t stream, Activation kind, const View& shape, Views... views) {
  switch (kind) {
    case Activation::kGelu:
      return Launch<kWidth>(stream, shape.rows, shape.cols, Fn<kWidth, Activation::kGelu>{views...});
    case Activation::kGeluTanh:
      return Launch<kWidth>(stream, shape.rows, shape.cols, Fn<kWidth, Activation::kGeluTanh>{views...});
    case Activation::kSwiglu:
      return Launch<kWidth>(stream, shape.rows, shape.cols, Fn<kWidth, Activation::kSwiglu>{views...});
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t ActivationForward(cudaStream_t stream, Activation kind, const View* gate, const View& up,
                              const View& y) {
  const View& g = gate != nullptr ? *gate : up;
  return Wide(g) && Wide(up) && Wide(y) ? LaunchActivation<ActivationFn, 8>(stream, kind, up, g, up, y)
                                        : LaunchActivation<ActivationFn, 1>(stream, kind, up, g, up, y);
}

cudaError_t ActivationBackward(cudaStream_t stream, Activation kind, const View* gate, const View& up,
                               const View& dy, const View* dgate, const View& dup, const View* y) {
  const View& g = gate != nullptr ? *gate : up;
  const View& dg = dgate != nullptr ? *dgate : dup;
  const View activated = y != nullptr ? *y : View{};
  const bool wide = Wide(g) && Wide(up) && Wide(dy) && Wide(dg) && Wide(dup) && (y == nullptr || Wide(*y));
  return wide ? LaunchActivation<ActivationGradFn, 8>(stream, kind, up, g, up, dy, dg, dup, activated)
              : LaunchActivation<ActivationGradFn, 1>(stream, kind, up, g, up, dy, dg, dup, activated);
}

cudaError_t Rotary(cudaStream_t stream, const View& x, int64_t batch, int head_dim, const float* table,
                   bool inverse) {
  const int half = head_dim / 2;
  const float sign = inverse ? -1.0f : 1.0f;
  const bool wide = Wide(x) && half % 8 == 0 && reinterpret_cast<uintptr_t>(table) % 16 == 0;
  return wide ? Launch<8>(stream, x.rows, x.cols / 2, RotaryFn<8>{x, batch, half, table, sign})
              : Launch<1>(stream, x.rows, x.cols / 2, RotaryFn<1>{x, batch, half, table, sign});
}

}  // namespace seqpar::cuda
