#include "worker/device/cpu/packed_gemm.h"

#include <algorithm>

#include "common/base/status.h"
#include "worker/device/cpu/packing.h"
#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {
namespace {

constexpr int kBlockRows = 128;   // rows of c that a task computes
constexpr int kBlockDepth = 192;  // depth of a packed panel
constexpr int kSlabCols = 768;    // a multiple of every panel (48, 24, 12)
constexpr int kSlabBlocks =
    12;  // blocks of depth packed at a time, where c is float32 and can hold partial sums

class Multiplication {
 public:
  Multiplication(const GemmSimd& simd, const CpuContext& cpu, const Matrix& a, bool transpose_a,
                 const Matrix& b, bool transpose_b, const Matrix& c, bool accumulate, const Matrix* bias)
      : simd_(simd),
        cpu_(cpu),
        a_(a),
        b_(b),
        c_(c),
        transpose_a_(transpose_a),
        transpose_b_(transpose_b),
        accumulate_(accumulate),
        bias_(bias),
        depth_(transpose_a ? a.rows : a.cols),
        blocks_((depth_ + kBlockDepth - 1) / kBlockDepth),
        direct_(c.dtype == DType::kF32),
        slab_blocks_(std::max<int64_t>(1, direct_ ? std::min<int64_t>(blocks_, kSlabBlocks) : blocks_)),
        // Rounding up to a panel cannot pass kSlabCols, which every panel divides.
        slab_cols_(RoundUp(static_cast<int>(std::min<int64_t>(c.cols, kSlabCols)), simd.panel)) {}

  absl::Status Run() {
    const int64_t slab_floats = slab_blocks_ * kBlockDepth * slab_cols_;
    SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch,
                            cpu_.scratch->Floats(slab_floats + cpu_.pool->threads() * TaskFloats()));
    slab_ = scratch.floats();
    task_scratch_ = slab_ + slab_floats;
    for (int64_t col = 0; col < c_.cols; col += slab_cols_) {
      // Once at least: a product of no depth is zero.
      for (int64_t block = 0; block == 0 || block < blocks_; block += slab_blocks_) {
        RunSlab(col, std::min(slab_cols_, c_.cols - col), block, std::min(blocks_, block + slab_blocks_));
      }
    }
    return absl::OkStatus();
  }

 private:
  int64_t TaskFloats() const {
    const int64_t sums = direct_ ? 0 : kBlockRows * slab_cols_;
    const int64_t buffer = int64_t{kGroup} * std::max<int64_t>(kBlockDepth, kSlabCols);
    return kBlockRows * kBlockDepth + sums + buffer;
  }
  int DepthOf(int64_t block) const {
    return static_cast<int>(std::min<int64_t>(kBlockDepth, depth_ - block * kBlockDepth));
  }
  float* PackedPanel(int64_t block, int64_t col) const {
    return slab_ + block * kBlockDepth * slab_cols_ + col * kBlockDepth;
  }

  // Columns [col, col + cols) of c and the blocks of depth [begin, end).
  void RunSlab(int64_t col, int64_t cols, int64_t begin, int64_t end) {
    const int64_t panels = (cols + simd_.panel - 1) / simd_.panel;
    cpu_.pool->ParallelFor((end - begin) * panels, [&](int64_t task, int participant) {
      PackPanel(begin, begin + task / panels, col, task % panels * simd_.panel, cols,
                task_scratch_ + participant * TaskFloats());
    });
    cpu_.pool->ParallelFor((c_.rows + kBlockRows - 1) / kBlockRows, [&](int64_t task, int participant) {
      ComputeRows(task * kBlockRows, col, cols, begin, end, task_scratch_ + participant * TaskFloats());
    });
  }

  // The panel of op(b) at column col + at, in one block of depth.
  void PackPanel(int64_t first_block, int64_t block, int64_t col, int64_t at, int64_t cols,
                 float* buffer) const {
    const int depth = DepthOf(block), panel = simd_.panel;
    const int64_t first = block * kBlockDepth;
    float* to = PackedPanel(block - first_block, at);
    if (transpose_b_) {
      PackAcross({b_, col, 1, first, depth}, cols, at, panel, panel, 1, buffer, to);
    } else {
      const int width = static_cast<int>(std::min<int64_t>(panel, cols - at));
      PackAlong({b_, first, 1, col + at, width}, depth, 0, depth, panel, buffer, to);
    }
  }

  // Rows [row, row + rows) of op(a), in one block of depth.
  void PackRows(int64_t row, int rows, int64_t block, float* buffer, float* to) const {
    const int depth = DepthOf(block);
    const int64_t first = block * kBlockDepth;
    if (transpose_a_) {
      PackAlong({a_, first, 1, row, rows}, depth, 0, depth, kGroup, buffer, to);
    } else {
      PackAcross({a_, row, 1, first, depth}, rows, 0, RoundUp(rows, kGroup), kGroup, 1, buffer, to);
    }
  }

  void ComputeRows(int64_t row, int64_t col, int64_t cols, int64_t begin, int64_t end, float* scratch) const {
    const int rows = static_cast<int>(std::min<int64_t>(kBlockRows, c_.rows - row));
    float* packed = scratch;
    float* sums = packed + kBlockRows * kBlockDepth;
    float* buffer = direct_ ? sums : sums + kBlockRows * slab_cols_;
    const Matrix c = c_.Rows(row, row + rows).Cols(col, col + cols);
    const Matrix target = direct_ ? c : Matrix(sums, DType::kF32, rows, cols, slab_cols_);
    if (begin == end) FillZero(target);
    for (int64_t block = begin; block < end; ++block) {
      PackRows(row, rows, block, buffer, packed);
      const bool add = block > 0 || (direct_ && accumulate_);
      for (int64_t at = 0; at < cols; at += simd_.panel) {
        simd_.multiply({packed, PackedPanel(block - begin, at), DepthOf(block), rows,
                        static_cast<int>(std::min<int64_t>(simd_.panel, cols - at)),
                        reinterpret_cast<float*>(target.At(0, at)), target.ld, add});
      }
    }
    if (end == blocks_) Finish(target, c, col);
  }

  void FillZero(const Matrix& target) const {
    if (direct_ && accumulate_) return;
    for (int64_t row = 0; row < target.rows; ++row) {
      std::fill_n(reinterpret_cast<float*>(target.At(row, 0)), target.cols, 0.0f);
    }
  }

  // c = sums [+ c] [+ bias], rounded once; where the sums are in c, only the bias is still to be added.
  void Finish(const Matrix& sums, const Matrix& c, int64_t col) const {
    if (direct_ && bias_ == nullptr) return;
    SpanBuffer c_buffer, bias_buffer;
    for (int64_t row = 0; row < c.rows; ++row) {
      ForEachSpan(c.cols, [&](int64_t at, int64_t n) {
        float* values = reinterpret_cast<float*>(sums.At(row, at));
        if (accumulate_ && !direct_) {
          const float* held = ReadSpan(c, row, at, n, c_buffer);
          for (int64_t i = 0; i < n; ++i) values[i] += held[i];
        }
        if (bias_ != nullptr) {
          const float* biases = ReadSpan(*bias_, 0, col + at, n, bias_buffer);
          for (int64_t i = 0; i < n; ++i) values[i] += biases[i];
        }
        StoreSpan(c, row, at, n, values);
      });
    }
  }

  const GemmSimd& simd_;
  const CpuContext& cpu_;
  const Matrix &a_, &b_, &c_;
  const bool transpose_a_, transpose_b_, accumulate_;
  const Matrix* bias_;
  const int64_t depth_, blocks_;
  const bool direct_;  // c itself holds the partial sums
  const int64_t slab_blocks_, slab_cols_;
  float* slab_ = nullptr;
  float* task_scratch_ = nullptr;
};

}  // namespace

absl::Status PackedGemm(const GemmSimd& simd, const CpuContext& cpu, const Matrix& a, bool transpose_a,
                        const Matrix& b, bool transpose_b, const Matrix& c, bool accumulate,
                        const Matrix* bias) {
  if (c.empty()) return absl::OkStatus();
  return Multiplication(simd, cpu, a, transpose_a, b, transpose_b, c, accumulate, bias).Run();
}

}  // namespace seqpar::cpu
