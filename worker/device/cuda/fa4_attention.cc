#include "worker/device/cuda/fa4_attention.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/device/cuda_scratch.h"
#include "worker/device/cuda/attention_table.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/fa4_sums.h"

namespace seqpar::cuda {
namespace {

// A launch for every run: below this many queries a run, on average, one launch of another kernel does
// better.
constexpr int64_t kQueriesARun = 128;
// So many runs are always taken: the edges of a window, a few chunks.
constexpr int64_t kFewRuns = 8;

Fa4Mask MaskOf(RunMask mask) {
  SEQPAR_CHECK(mask != RunMask::kEmpty);
  return mask == RunMask::kFull     ? Fa4Mask::kFull
         : mask == RunMask::kCausal ? Fa4Mask::kCausal
                                    : Fa4Mask::kWindow;
}

// The kernels read and write vectors of 16 bytes, and copy by tensor maps, whose strides are multiples of
// them.
bool Aligned(const Matrix& m) {
  return reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && m.ld * SizeOf(m.dtype) % 16 == 0;
}

// Tokens [first, first + count) of a matrix of heads `width` columns wide, for the heads of a grid.
struct Part {
  const HeadGrid& grid;
  int64_t batch, first, count, width;
  bool kv;

  char* Data(const Matrix& m) const {
    return m.At(first * batch + grid.row, (kv ? grid.kv_head : grid.q_head) * width);
  }
  int64_t OuterStride(const Matrix& m) const {
    return grid.outer_rows * m.ld + (kv ? grid.outer_kv : grid.outer_q) * width;
  }
  int64_t InnerStride() const { return (kv ? 1 : grid.inner_q) * width; }
  int64_t TokenStride(const Matrix& m) const { return batch * m.ld; }

  Fa4Rows Rows(const Matrix& m) const {
    return {Data(m),
            {static_cast<int32_t>(grid.outer), static_cast<int32_t>(count), static_cast<int32_t>(grid.inner)},
            {OuterStride(m), TokenStride(m), InnerStride()}};
  }
  Fa4Places Places(const Matrix& m) const {
    return {Data(m),
            {static_cast<int32_t>(grid.outer), static_cast<int32_t>(grid.inner), static_cast<int32_t>(count)},
            {OuterStride(m), InnerStride(), TokenStride(m)}};
  }
  PerQuery Each(const Matrix& m) const {
    return {reinterpret_cast<float*>(Data(m)), OuterStride(m), InnerStride(), TokenStride(m)};
  }
};

Part Queries(const AttentionTile& tile, const QueryRun& run, const HeadGrid& grid, int64_t width) {
  return {grid, tile.batch, run.first, run.count, width, false};
}
Part Keys(const AttentionTile& tile, const QueryRun& run, const HeadGrid& grid) {
  return {grid, tile.batch, run.first_key, run.keys, tile.head_dim, true};
}

}  // namespace

const std::optional<std::vector<QueryRun>>& Fa4Attention::RunsOf(const AttentionTile& tile) {
  const auto found = runs_.find(tile.ranges.get());
  if (found != runs_.end()) return found->second.runs;
  if (runs_.size() >= drop_at_) {
    for (auto it = runs_.begin(); it != runs_.end();) {
      it = it->second.ranges.use_count() == 1 ? runs_.erase(it) : std::next(it);
    }
    drop_at_ = std::max<size_t>(64, 2 * runs_.size());
  }
  Runs entry{tile.ranges, CutIntoRuns(*tile.ranges, std::max(kFewRuns, tile.queries / kQueriesARun))};
  return runs_.emplace(tile.ranges.get(), std::move(entry)).first->second.runs;
}

bool Fa4Attention::Serves(const AttentionTile& tile, const std::vector<Matrix>& others) {
  const auto serves = [&](MaskShape mask) {
    return ChooseAttention(capability_, tile.q.dtype, tile.head_dim, mask) == AttentionKernel::kFa4;
  };
  if (!serves(MaskShape::kRegular) ||
      Fa4Kernel::Find(Fa4Kind::kForward, tile.head_dim, Fa4Mask::kFull) == nullptr) {
    return false;
  }
  if (!Aligned(tile.q) || !Aligned(tile.k) || !Aligned(tile.v)) return false;
  if (!std::all_of(others.begin(), others.end(), Aligned)) return false;
  return RunsOf(tile).has_value() || serves(MaskShape::kIrregular);
}

absl::Status Fa4Attention::Forward(cudaStream_t stream, const AttentionTile& tile, const Matrix& out,
                                   const Matrix& lse, bool first) {
  const std::vector<HeadGrid> grids = HeadGrids(tile.batch, tile.heads, tile.group, /*shared_kv=*/true);
  for (const QueryRun& run : *RunsOf(tile)) {
    if (run.mask == RunMask::kEmpty) {
      if (!first) continue;
      const int64_t begin = run.first * tile.batch, end = begin + run.count * tile.batch;
      const Matrix o = out.Rows(begin, end), l = lse.Rows(begin, end);
      SEQPAR_CUDA_RETURN_IF_ERROR(FillUnseen(stream, static_cast<float*>(o.data), o.ld, o.cols,
                                             static_cast<float*>(l.data), l.ld, l.cols, o.rows),
                                  "queries that see nothing");
      continue;
    }
    const Fa4Kernel* kernel =
        Fa4Kernel::Find(first ? Fa4Kind::kForward : Fa4Kind::kMerge, tile.head_dim, MaskOf(run.mask));
    for (const HeadGrid& grid : grids) {
      const Part q = Queries(tile, run, grid, tile.head_dim), kv = Keys(tile, run, grid);
      SEQPAR_RETURN_IF_ERROR(kernel->Forward(
          stream, {q.Rows(tile.q), kv.Rows(tile.k), kv.Rows(tile.v), q.Rows(out),
                   Queries(tile, run, grid, 1).Places(lse), tile.scale, run.left, run.right}));
    }
  }
  return absl::OkStatus();
}

absl::Status Fa4Attention::Backward(cudaStream_t stream, const AttentionTile& tile, const Matrix& dout,
                                    const Matrix& lse, const Matrix& delta, const Matrix& dq,
                                    const Matrix& dk, const Matrix& dv) {
  const std::vector<HeadGrid> grids = HeadGrids(tile.batch, tile.heads, tile.group, !fixed_order_);
  for (const QueryRun& run : *RunsOf(tile)) {
    if (run.mask == RunMask::kEmpty) continue;
    const int64_t heads_max = CudaAttentionHeads(run.count, tile.head_dim);
    for (const HeadGrid& whole : grids) {
      for (const HeadGrid& grid : SplitGrid(whole, heads_max)) {
        SEQPAR_RETURN_IF_ERROR(BackwardRun(stream, tile, run, grid, dout, lse, delta, dq, dk, dv));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Fa4Attention::BackwardRun(cudaStream_t stream, const AttentionTile& tile, const QueryRun& run,
                                       const HeadGrid& grid, const Matrix& dout, const Matrix& lse,
                                       const Matrix& delta, const Matrix& dq, const Matrix& dk,
                                       const Matrix& dv) {
  const Fa4Kernel* kernel = Fa4Kernel::Find(fixed_order_ ? Fa4Kind::kBackwardFixed : Fa4Kind::kBackward,
                                            tile.head_dim, MaskOf(run.mask));
  const int64_t tiles = (run.count + kernel->tile_m() - 1) / kernel->tile_m();
  const int64_t padded = tiles * kernel->tile_m(), heads = grid.outer * grid.inner;
  const auto outer = static_cast<int32_t>(grid.outer), inner = static_cast<int32_t>(grid.inner);
  SEQPAR_ASSIGN_OR_RETURN(
      void* const scratch,
      scratch_->Take(stream, CudaAttentionScratchBytes(run.count, heads, tile.head_dim, kernel->tile_m()),
                     "the sums of an attention gradient"));
  // Sums of dQ, log-sum-exps, deltas, and for fixed order the tiles' turns.
  BackwardSums sums{outer,
                    inner,
                    tile.head_dim,
                    kernel->tile_m(),
                    run.count,
                    padded,
                    nullptr,
                    nullptr,
                    static_cast<float*>(scratch)};
  sums.lse = sums.sums + heads * padded * tile.head_dim;
  sums.delta = sums.lse + heads * padded;
  void* turns = sums.delta + heads * padded;

  const Part q = Queries(tile, run, grid, tile.head_dim), one = Queries(tile, run, grid, 1),
             kv = Keys(tile, run, grid);
  SEQPAR_CUDA_RETURN_IF_ERROR(PrepareBackward(stream, one.Each(lse), one.Each(delta), sums),
                              "prepare an attention gradient");
  // Last before the kernel, which may start while the kernel before it ends, and looks at its turns at once.
  if (fixed_order_) {
    SEQPAR_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(turns, 0, heads * tiles * 4, stream),
                                "prepare an attention gradient");
  }
  const auto lines = [&](float* data, int64_t n) {
    return Fa4Lines{data, {outer, inner, static_cast<int32_t>(n)}, {inner * n, n}};
  };
  const Fa4Turns counters{turns, {outer, inner, static_cast<int32_t>(tiles)}, {inner * tiles, tiles, 1}};
  SEQPAR_RETURN_IF_ERROR(kernel->Backward(
      stream, {q.Rows(tile.q), kv.Rows(tile.k), kv.Rows(tile.v), q.Rows(dout), lines(sums.lse, padded),
               lines(sums.delta, padded), lines(sums.sums, padded * tile.head_dim), kv.Places(dk),
               kv.Places(dv), counters, tile.scale, run.left, run.right}));
  return ToStatus(AddQueryGradients(stream, sums, tile.scale, q.Each(dq)), "add an attention gradient");
}

}  // namespace seqpar::cuda
