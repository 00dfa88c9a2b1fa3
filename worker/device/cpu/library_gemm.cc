#include "worker/device/cpu/library_gemm.h"

#include <cblas.h>

#include <algorithm>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {
namespace {

// The block of the result that one task computes, and the depth that is converted at a time where operands
// are bfloat16.
constexpr int64_t kBlockRows = 256;
constexpr int64_t kBlockCols = 512;
constexpr int64_t kBlockDepth = 512;

struct Product {
  Matrix a, b, c;
  bool transpose_a, transpose_b, accumulate;
  const Matrix* bias;
  int64_t depth;

  Matrix OperandA(int64_t row, int64_t rows, int64_t at, int64_t n) const {
    return transpose_a ? a.Rows(at, at + n).Cols(row, row + rows) : a.Rows(row, row + rows).Cols(at, at + n);
  }
  Matrix OperandB(int64_t at, int64_t n, int64_t col, int64_t cols) const {
    return transpose_b ? b.Rows(col, col + cols).Cols(at, at + n) : b.Rows(at, at + n).Cols(col, col + cols);
  }
};

// target (float32) = op(a) op(b) + beta target; a and b float32.
void Sgemm(const Product& p, const Matrix& a, const Matrix& b, const Matrix& target, int64_t depth,
           float beta) {
  // Debian's single-threaded OpenBLAS hands out its buffers without locks: two calls at once share one and
  // give wrong products. The library is the comparison here, not the fast path: one call at a time.
  static Mutex one_at_a_time;
  MutexLock lock(one_at_a_time);
  cblas_sgemm(CblasRowMajor, p.transpose_a ? CblasTrans : CblasNoTrans,
              p.transpose_b ? CblasTrans : CblasNoTrans, target.rows, target.cols, depth, 1.0f,
              static_cast<const float*>(a.data), a.ld, static_cast<const float*>(b.data), b.ld, beta,
              static_cast<float*>(target.data), target.ld);
}

// `m` where it is float32, else its values converted into `buffer`.
Matrix AsFloat(const Matrix& m, float* buffer) {
  if (m.dtype == DType::kF32) return m;
  for (int64_t row = 0; row < m.rows; ++row) {
    WidenBF16(reinterpret_cast<const BF16*>(m.At(row, 0)), buffer + row * m.cols, m.cols);
  }
  return Matrix(buffer, DType::kF32, m.rows, m.cols);
}

// c = sum [+ c] [+ bias], where the sum lies apart from c; where it is c, only the bias is still to be added.
void Finish(const Product& p, const Matrix& sum, const Matrix& c, int64_t col) {
  const bool in_place = sum.data == c.data;
  if (in_place && p.bias == nullptr) return;
  SpanBuffer c_buffer, bias_buffer;
  for (int64_t row = 0; row < c.rows; ++row) {
    ForEachSpan(c.cols, [&](int64_t at, int64_t n) {
      float* values = reinterpret_cast<float*>(sum.At(row, at));
      if (p.accumulate && !in_place) {
        const float* held = ReadSpan(c, row, at, n, c_buffer);
        for (int64_t i = 0; i < n; ++i) values[i] += held[i];
      }
      if (p.bias != nullptr) {
        const float* biases = ReadSpan(*p.bias, 0, col + at, n, bias_buffer);
        for (int64_t i = 0; i < n; ++i) values[i] += biases[i];
      }
      StoreSpan(c, row, at, n, values);
    });
  }
}

// `scratch` has room for a block of a, of b and of the result.
void ComputeBlock(const Product& p, int64_t row, int64_t col, float* scratch) {
  const Matrix c =
      p.c.Rows(row, std::min(row + kBlockRows, p.c.rows)).Cols(col, std::min(col + kBlockCols, p.c.cols));
  float* a_scratch = scratch;
  float* b_scratch = a_scratch + kBlockRows * kBlockDepth;
  float* sum_scratch = b_scratch + kBlockDepth * kBlockCols;
  const bool direct = c.dtype == DType::kF32;
  const Matrix sum = direct ? c : Matrix(sum_scratch, DType::kF32, c.rows, c.cols);
  const int64_t step = p.a.dtype == DType::kF32 ? std::max<int64_t>(p.depth, 1) : kBlockDepth;
  float beta = direct && p.accumulate ? 1.0f : 0.0f;
  // Once at least: a product of no depth is zero.
  for (int64_t at = 0; at == 0 || at < p.depth; at += step) {
    const int64_t n = std::min(step, p.depth - at);
    const Matrix a = AsFloat(p.OperandA(row, c.rows, at, n), a_scratch);
    const Matrix b = AsFloat(p.OperandB(at, n, col, c.cols), b_scratch);
    Sgemm(p, a, b, sum, n, beta);
    beta = 1.0f;
  }
  Finish(p, sum, c, col);
}

// OpenBLAS's own threads would compete with the device's, and make results depend on their number.
void UseOneBlasThread() {
  static const bool once = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  (void)once;
}

}  // namespace

absl::Status LibraryGemm(const CpuContext& cpu, const Matrix& a, bool transpose_a, const Matrix& b,
                         bool transpose_b, const Matrix& c, bool accumulate, const Matrix* bias) {
  if (c.empty()) return absl::OkStatus();
  UseOneBlasThread();
  const Product product{a, b, c, transpose_a, transpose_b, accumulate, bias, transpose_a ? a.rows : a.cols};
  const int64_t row_blocks = (c.rows + kBlockRows - 1) / kBlockRows;
  const int64_t col_blocks = (c.cols + kBlockCols - 1) / kBlockCols;
  const bool converts = a.dtype != DType::kF32 || c.dtype != DType::kF32;
  const int64_t floats_each =
      converts ? kBlockRows * kBlockDepth + kBlockDepth * kBlockCols + kBlockRows * kBlockCols : 0;
  SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch, cpu.scratch->Floats(floats_each * cpu.pool->threads()));
  cpu.pool->ParallelFor(row_blocks * col_blocks, [&](int64_t task, int participant) {
    ComputeBlock(product, task / col_blocks * kBlockRows, task % col_blocks * kBlockCols,
                 scratch.floats() + participant * floats_each);
  });
  return absl::OkStatus();
}

}  // namespace seqpar::cpu
