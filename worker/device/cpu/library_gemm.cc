#include "worker/device/cpu/library_gemm.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <unordered_map>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/device/cpu/packing.h"
#include "worker/device/cpu/spans.h"

// The library computes with OpenMP; <omp.h> belongs to one compiler.
extern "C" void omp_set_num_threads(int);

namespace seqpar::cpu {
namespace {

using dnnl::memory;

// A task computes a block of rows of the result, over all columns: the library's best kernels want a dense
// result. It copies b anew for every block, which weighs 1 to 4 % with 256 rows.
constexpr int64_t kBlockRows = 256;
// Where operands are bfloat16 and the processor cannot multiply them, the block and the depth that are
// converted at a time.
constexpr int64_t kConvertedCols = 512;
constexpr int64_t kConvertedDepth = 512;

// The device has threads of its own: in each, the library is to use that one and no other.
void UseThisThreadOnly() {
  thread_local const bool once = [] {
    omp_set_num_threads(1);
    return true;
  }();
  (void)once;
}

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

bool MultipliesBF16() {
  static const bool can = [] {
    switch (dnnl::get_effective_cpu_isa()) {
      case dnnl::cpu_isa::avx512_core_bf16:
      case dnnl::cpu_isa::avx512_core_amx:
        return true;
      default:
        return false;
    }
  }();
  return can;
}

absl::Status LibraryError(const char* what) {
  return MakeError(absl::StatusCode::kInternal, reason::kInternal, absl::StrCat("oneDNN: ", what));
}

memory::desc DescOf(const Matrix& m, bool transpose) {
  const auto type = m.dtype == DType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
  return transpose ? memory::desc({m.cols, m.rows}, type, memory::dims{1, m.ld})
                   : memory::desc({m.rows, m.cols}, type, memory::dims{m.ld, 1});
}

// One product: the whole call's, a block's, or a piece of a block's depth.
struct Product {
  Matrix a, b, c;
  bool transpose_a, transpose_b, accumulate;
  Matrix bias;  // empty: none

  int64_t depth() const { return transpose_a ? a.rows : a.cols; }
  // Rows [row, row_end) and columns [col, col_end) of the result, of the depth [at, at + n).
  Product Block(int64_t row, int64_t row_end, int64_t col, int64_t col_end, int64_t at, int64_t n) const {
    Product block = *this;
    block.a = transpose_a ? a.Rows(at, at + n).Cols(row, row_end) : a.Rows(row, row_end).Cols(at, at + n);
    block.b = transpose_b ? b.Rows(col, col_end).Cols(at, at + n) : b.Rows(at, at + n).Cols(col, col_end);
    block.c = c.Rows(row, row_end).Cols(col, col_end);
    if (!bias.empty()) block.bias = bias.Cols(col, col_end);
    return block;
  }
};

// The library's kernel for products of one shape, strides and types. Throws dnnl::error.
class Kernel {
 public:
  explicit Kernel(const Product& p) : a_(DescOf(p.a, p.transpose_a)), b_(DescOf(p.b, p.transpose_b)) {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (p.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    c_ = DescOf(p.c, false);
    if (!p.bias.empty()) bias_ = DescOf(p.bias, false);
    const dnnl::matmul::desc operation =
        p.bias.empty() ? dnnl::matmul::desc(a_, b_, c_) : dnnl::matmul::desc(a_, b_, bias_, c_);
    const dnnl::matmul::primitive_desc chosen(operation, attributes, Engine());
    scratch_ = chosen.scratchpad_desc();
    multiply_ = dnnl::matmul(chosen);
  }

  int64_t scratch_bytes() const { return static_cast<int64_t>(scratch_.get_size()); }

  // p: of this kernel's shape. scratch: 64-byte aligned.
  void Run(const Product& p, float* scratch) const {
    dnnl::stream stream(Engine());
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC, memory(a_, Engine(), p.a.data)},
        {DNNL_ARG_WEIGHTS, memory(b_, Engine(), p.b.data)},
        {DNNL_ARG_DST, memory(c_, Engine(), p.c.data)},
        {DNNL_ARG_SCRATCHPAD, memory(scratch_, Engine(), scratch)},
    };
    if (!p.bias.empty()) arguments.insert({DNNL_ARG_BIAS, memory(bias_, Engine(), p.bias.data)});
    multiply_.execute(stream, arguments);
    stream.wait();
  }

 private:
  memory::desc a_, b_, c_, bias_, scratch_;
  dnnl::matmul multiply_;
};

void WidenMatrix(const Matrix& from, const Matrix& to) {
  for (int64_t row = 0; row < from.rows; ++row) {
    WidenBF16(reinterpret_cast<const BF16*>(from.At(row, 0)), reinterpret_cast<float*>(to.At(row, 0)),
              from.cols);
  }
}

// c = sums [+ c] [+ bias], rounded once; sums without data are zero. Where they lie in c, only the bias is
// still to be added.
void Finish(const Product& p, const Matrix& sums) {
  const bool in_place = sums.data == p.c.data;
  if (in_place && p.bias.empty()) return;
  SpanBuffer values, buffer;
  for (int64_t row = 0; row < p.c.rows; ++row) {
    ForEachSpan(p.c.cols, [&](int64_t at, int64_t n) {
      std::fill_n(values, n, 0.0f);
      const auto add = [&](const Matrix& term, int64_t term_row) {
        const float* floats = ReadSpan(term, term_row, at, n, buffer);
        for (int64_t i = 0; i < n; ++i) values[i] += floats[i];
      };
      if (sums.data != nullptr) add(sums, row);
      if (p.accumulate && !in_place) add(p.c, row);
      if (!p.bias.empty()) add(p.bias, 0);
      if (p.c.dtype == DType::kF32) {
        std::copy_n(values, n, reinterpret_cast<float*>(p.c.At(row, at)));
      } else {
        StoreSpan(p.c, row, at, n, values);
      }
    });
  }
}

class Multiplication {
 public:
  Multiplication(const CpuContext& cpu, const Product& whole)
      : cpu_(cpu),
        whole_(whole),
        converts_(whole.a.dtype == DType::kBF16 && !MultipliesBF16()),
        block_cols_(converts_ ? kConvertedCols : whole.c.cols),
        depth_step_(converts_ ? kConvertedDepth : whole.depth()) {}

  // Throws dnnl::error, but not from the pool's threads.
  absl::Status Run() {
    PrepareKernels();
    const int64_t kernel_floats = Carver::Padded((kernel_scratch_bytes_ + 3) / 4);
    const int64_t floats_each = kernel_floats + (converts_ ? kConvertedFloats : 0);
    SEQPAR_ASSIGN_OR_RETURN(const Scratch scratch, cpu_.scratch->Floats(floats_each * cpu_.pool->threads()));
    const int64_t row_blocks = (whole_.c.rows + kBlockRows - 1) / kBlockRows;
    const int64_t col_blocks = (whole_.c.cols + block_cols_ - 1) / block_cols_;
    std::atomic<bool> failed{false};
    cpu_.pool->ParallelFor(row_blocks * col_blocks, [&](int64_t task, int participant) {
      UseThisThreadOnly();
      float* own = scratch.floats() + participant * floats_each;
      try {
        ComputeBlock(task / col_blocks * kBlockRows, task % col_blocks * block_cols_, own,
                     own + kernel_floats);
      } catch (const dnnl::error&) {
        failed.store(true, std::memory_order_relaxed);
      }
    });
    return failed.load() ? LibraryError("a product failed") : absl::OkStatus();
  }

 private:
  static constexpr int64_t kConvertedFloats =
      kBlockRows * kConvertedDepth + kConvertedDepth * kConvertedCols + kBlockRows * kConvertedCols;

  // What a kernel is made for; everything else is the same in the whole call.
  using Shape = std::tuple<int64_t, int64_t, int64_t, bool>;
  static Shape ShapeOf(const Product& p) { return {p.c.rows, p.c.cols, p.depth(), p.accumulate}; }

  // The block that begins at (row, col), of the depth [at, at + n).
  Product Stored(int64_t row, int64_t col, int64_t at, int64_t n) const {
    return whole_.Block(row, std::min(row + kBlockRows, whole_.c.rows), col,
                        std::min(col + block_cols_, whole_.c.cols), at, n);
  }

  // A piece of a block as the kernel sees it: itself, or with operands (and sums, where c is bfloat16) that
  // are converted into `converted`, kConvertedFloats (null: only the shape is wanted).
  Product Piece(int64_t row, int64_t col, int64_t at, float* converted) const {
    Product piece = Stored(row, col, at, std::min(depth_step_, whole_.depth() - at));
    if (!converts_) return piece;
    const auto floats = [converted](const Matrix& m, int64_t offset) {
      return Matrix(converted == nullptr ? nullptr : converted + offset, DType::kF32, m.rows, m.cols);
    };
    piece.accumulate = at > 0 || (whole_.accumulate && piece.c.dtype == DType::kF32);
    piece.bias = Matrix();
    piece.a = floats(piece.a, 0);
    piece.b = floats(piece.b, kBlockRows * kConvertedDepth);
    if (piece.c.dtype != DType::kF32) {
      piece.c = floats(piece.c, kBlockRows * kConvertedDepth + kConvertedDepth * kConvertedCols);
    }
    return piece;
  }

  // Every shape that occurs is that of a block at a corner of the result.
  void PrepareKernels() {
    const int64_t last_row = (whole_.c.rows - 1) / kBlockRows * kBlockRows;
    const int64_t last_col = (whole_.c.cols - 1) / block_cols_ * block_cols_;
    for (const int64_t row : {int64_t{0}, last_row}) {
      for (const int64_t col : {int64_t{0}, last_col}) {
        for (int64_t at = 0; at < whole_.depth(); at += depth_step_) {
          const Product piece = Piece(row, col, at, nullptr);
          const auto [kernel, is_new] = kernels_.try_emplace(ShapeOf(piece), piece);
          kernel_scratch_bytes_ = std::max(kernel_scratch_bytes_, kernel->second.scratch_bytes());
        }
      }
    }
  }

  void ComputeBlock(int64_t row, int64_t col, float* kernel_scratch, float* converted) const {
    Product piece;
    for (int64_t at = 0; at < whole_.depth(); at += depth_step_) {
      piece = Piece(row, col, at, converted);
      if (converts_) {
        const Product stored = Stored(row, col, at, piece.depth());
        WidenMatrix(stored.a, piece.a);
        WidenMatrix(stored.b, piece.b);
      }
      kernels_.at(ShapeOf(piece)).Run(piece, kernel_scratch);
    }
    if (converts_) Finish(Stored(row, col, 0, whole_.depth()), piece.c);
  }

  const CpuContext& cpu_;
  const Product& whole_;
  const bool converts_;
  const int64_t block_cols_, depth_step_;
  std::map<Shape, Kernel> kernels_;
  int64_t kernel_scratch_bytes_ = 0;
};

}  // namespace

absl::Status LibraryGemm(const CpuContext& cpu, const Matrix& a, bool transpose_a, const Matrix& b,
                         bool transpose_b, const Matrix& c, bool accumulate, const Matrix* bias) {
  if (c.empty()) return absl::OkStatus();
  const Product product{a, b, c, transpose_a, transpose_b, accumulate, bias == nullptr ? Matrix() : *bias};
  if (product.depth() == 0) {
    Finish(product, Matrix());
    return absl::OkStatus();
  }
  UseThisThreadOnly();
  try {
    return Multiplication(cpu, product).Run();
  } catch (const dnnl::error& error) {
    return LibraryError(error.what());
  }
}

}  // namespace seqpar::cpu
