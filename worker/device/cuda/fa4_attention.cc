#include "worker/device/cuda/fa4_attention.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/base/status.h"
#include "common/device/cuda_scratch.h"
#include "worker/device/cuda/cuda_status.h"
#include "worker/device/cuda/cudnn_sums.h"
#include "worker/device/cuda/fa4_sums.h"
#include "worker/device/cuda/head_part.h"

namespace seqpar::cuda {
namespace {

constexpr int64_t kForwardTile = 256;  // queries: a cut elsewhere leaves a part of one

Fa4Mask MaskOf(RunMask mask) {
  SEQPAR_CHECK(mask != RunMask::kEmpty);
  return mask == RunMask::kFull     ? Fa4Mask::kFull
         : mask == RunMask::kCausal ? Fa4Mask::kCausal
                                    : Fa4Mask::kWindow;
}

Fa4Rows RowsOf(const HeadPart& part, const Matrix& m) {
  return {part.Data(m),
          {static_cast<int32_t>(part.grid.outer), static_cast<int32_t>(part.count),
           static_cast<int32_t>(part.grid.inner)},
          {part.OuterStride(m), part.TokenStride(m), part.InnerStride()}};
}
int32_t IsRounded(const Matrix& result) { return result.dtype == DType::kBF16 ? 1 : 0; }
Fa4Places PlacesOf(const HeadPart& part, const Matrix& m) {
  return {part.Data(m),
          {static_cast<int32_t>(part.grid.outer), static_cast<int32_t>(part.grid.inner),
           static_cast<int32_t>(part.count)},
          {part.OuterStride(m), part.InnerStride(), part.TokenStride(m)}};
}
// A result, of m, as Fa4ForwardCall and Fa4BackwardCall want it: one that is rounded is seen as pairs.
template <typename Operand>
Operand ResultOf(Operand operand, const Matrix& m) {
  if (IsRounded(m)) {
    for (int64_t& stride : operand.stride) stride /= 2;
  }
  return operand;
}
PerQuery EachOf(const HeadPart& part, const Matrix& m) {
  return {reinterpret_cast<float*>(part.Data(m)), part.OuterStride(m), part.InnerStride(),
          part.TokenStride(m)};
}

HeadRows HeadsOf(const HeadPart& part, const Matrix& m) {
  return {part.Data(m), part.OuterStride(m), part.InnerStride(), part.TokenStride(m)};
}

// A run's queries have nothing there.
absl::Status ZeroRows(cudaStream_t stream, const AttentionTile& tile, const QueryRun& run, const Matrix& m) {
  const Matrix rows = m.Rows(run.first * tile.batch, (run.first + run.count) * tile.batch);
  const int64_t size = SizeOf(rows.dtype);
  return ToStatus(cudaMemset2DAsync(rows.data, rows.ld * size, 0, rows.cols * size, rows.rows, stream),
                  "queries that see nothing");
}

HeadPart Queries(const AttentionTile& tile, const QueryRun& run, const HeadGrid& grid, int64_t width) {
  return {grid, tile.batch, run.first, run.count, width, false};
}
HeadPart Keys(const AttentionTile& tile, const QueryRun& run, const HeadGrid& grid) {
  return {grid, tile.batch, run.first_key, run.keys, tile.head_dim, true};
}

}  // namespace

bool Fa4Attention::Serves(const AttentionTile& tile, const std::vector<Matrix>& others) const {
  return Fa4Kernel::Find(capability_, Fa4Kind::kForward, tile.head_dim, Fa4Mask::kFull) != nullptr &&
         AlignedForTensorCores(tile.q) && AlignedForTensorCores(tile.k) && AlignedForTensorCores(tile.v) &&
         std::all_of(others.begin(), others.end(), AlignedForTensorCores);
}

bool Fa4Attention::Rounds(int head_dim) const {
  const Fa4Kernel* kernel = Fa4Kernel::Find(capability_, Fa4Kind::kForward, head_dim, Fa4Mask::kFull);
  return kernel != nullptr && kernel->rounds();
}

// One launch has each key of each head: a run with all keys, and no query heads that share one.
bool Fa4Attention::RoundsKeys(const AttentionTile& tile, const std::vector<QueryRun>& runs) const {
  return Rounds(tile.head_dim) && tile.heads.q_heads() == tile.heads.kv_heads() && runs.size() == 1 &&
         runs[0].mask != RunMask::kEmpty && runs[0].keys == tile.keys;
}

const Fa4Kernel* Fa4Attention::KernelOf(Fa4Kind kind, int head_dim, QueryRun* run) const {
  const Fa4Kernel* kernel = Fa4Kernel::Find(capability_, kind, head_dim, MaskOf(run->mask));
  if (kernel != nullptr || run->mask != RunMask::kCausal) return kernel;
  run->mask = RunMask::kWindow;
  run->left = kUnlimited;
  run->right = 0;
  return Fa4Kernel::Find(capability_, kind, head_dim, Fa4Mask::kWindow);
}

absl::Status Fa4Attention::Forward(cudaStream_t stream, const AttentionTile& tile,
                                   const std::vector<QueryRun>& runs, const Matrix& out, const Matrix& lse,
                                   bool first) {
  const std::vector<HeadGrid> grids = HeadGrids(tile.batch, tile.heads, tile.group, /*shared_kv=*/true);
  const bool outside =
      !first && Fa4Kernel::Find(capability_, Fa4Kind::kMerge, tile.head_dim, Fa4Mask::kFull) == nullptr;
  for (QueryRun run : runs) {
    if (run.mask == RunMask::kEmpty) {
      if (!first) continue;
      SEQPAR_RETURN_IF_ERROR(ZeroRows(stream, tile, run, out));
      const Matrix l = lse.Rows(run.first * tile.batch, (run.first + run.count) * tile.batch);
      SEQPAR_CUDA_RETURN_IF_ERROR(
          FillUnseen(stream, nullptr, 0, 0, static_cast<float*>(l.data), l.ld, l.cols, l.rows),
          "queries that see nothing");
      continue;
    }
    if (outside) {
      for (const HeadGrid& grid : grids) {
        SEQPAR_RETURN_IF_ERROR(MergeOutside(stream, tile, run, grid, out, lse));
      }
      continue;
    }
    const Fa4Kernel* kernel = KernelOf(first ? Fa4Kind::kForward : Fa4Kind::kMerge, tile.head_dim, &run);
    for (const HeadGrid& grid : grids) {
      const HeadPart q = Queries(tile, run, grid, tile.head_dim), kv = Keys(tile, run, grid);
      SEQPAR_RETURN_IF_ERROR(kernel->Forward(
          stream,
          {RowsOf(q, tile.q), RowsOf(kv, tile.k), RowsOf(kv, tile.v), ResultOf(RowsOf(q, out), out),
           PlacesOf(Queries(tile, run, grid, 1), lse), tile.scale, run.left, run.right, IsRounded(out)}));
    }
  }
  return absl::OkStatus();
}

absl::Status Fa4Attention::MergeOutside(cudaStream_t stream, const AttentionTile& tile, const QueryRun& run,
                                        const HeadGrid& grid, const Matrix& out, const Matrix& lse) {
  const int64_t d = tile.head_dim, row_bytes = (d + 1) * 4;
  const int64_t queries_max = kCudaAttentionLeastBytes / row_bytes / kForwardTile * kForwardTile;
  for (QueryRun part : SplitRun(run, queries_max)) {
    const Fa4Kernel* kernel = KernelOf(Fa4Kind::kForward, tile.head_dim, &part);
    for (const HeadGrid& some : SplitGrid(grid, kCudaAttentionLeastBytes / (part.count * row_bytes))) {
      const HeadDims dims{some.outer, some.inner, part.count, tile.head_dim};
      SEQPAR_ASSIGN_OR_RETURN(void* const scratch,
                              scratch_->Take(stream, dims.outer * dims.heads * dims.tokens * row_bytes,
                                             "partial results of attention"));
      auto* const o = static_cast<float*>(scratch);
      float* const o_lse = o + dims.outer * dims.heads * dims.tokens * d;
      const auto outer = static_cast<int32_t>(dims.outer), heads = static_cast<int32_t>(dims.heads),
                 tokens = static_cast<int32_t>(dims.tokens);
      const HeadPart q = Queries(tile, part, some, d), kv = Keys(tile, part, some);
      SEQPAR_RETURN_IF_ERROR(kernel->Forward(
          stream, {RowsOf(q, tile.q),
                   RowsOf(kv, tile.k),
                   RowsOf(kv, tile.v),
                   {o, {outer, tokens, heads}, {dims.tokens * dims.heads * d, dims.heads * d, d}},
                   {o_lse, {outer, heads, tokens}, {dims.heads * dims.tokens, dims.tokens, 1}},
                   tile.scale,
                   part.left,
                   part.right}));
      SEQPAR_CUDA_RETURN_IF_ERROR(
          MergePartial(stream, dims, o, o_lse, HeadsOf(q, out), HeadsOf(Queries(tile, part, some, 1), lse)),
          "merge a partial result of attention");
    }
  }
  return absl::OkStatus();
}

absl::Status Fa4Attention::Backward(cudaStream_t stream, const AttentionTile& tile,
                                    const std::vector<QueryRun>& runs, const Matrix& dout, const Matrix& lse,
                                    const Matrix& delta, const Matrix& dq, const Matrix& dk,
                                    const Matrix& dv) {
  const std::vector<HeadGrid> grids =
      HeadGrids(tile.batch, tile.heads, tile.group, !fixed_order_ || TakesTurns(tile));
  for (const QueryRun& run : runs) {
    if (run.mask == RunMask::kEmpty) {
      if (IsRounded(dq)) SEQPAR_RETURN_IF_ERROR(ZeroRows(stream, tile, run, dq));
      continue;
    }
    const int64_t heads_max = CudaAttentionHeads(run.count, tile.head_dim);
    for (const HeadGrid& whole : grids) {
      for (const HeadGrid& grid : SplitGrid(whole, heads_max)) {
        SEQPAR_RETURN_IF_ERROR(BackwardRun(stream, tile, run, grid, dout, lse, delta, dq, dk, dv));
      }
    }
  }
  return absl::OkStatus();
}

int64_t Fa4Attention::KeyTurns(int64_t keys) {
  return (keys + Fa4Kernel::kKeyTile - 1) / Fa4Kernel::kKeyTile;
}

bool Fa4Attention::TakesTurns(const AttentionTile& tile) const {
  const Fa4Kernel* kernel =
      Fa4Kernel::Find(capability_, Fa4Kind::kBackwardFixed, tile.head_dim, Fa4Mask::kFull);
  return kernel != nullptr && kernel->takes_turns() &&
         tile.heads.kv_heads() * KeyTurns(tile.keys) * 4 <= kCudaAttentionTurnsBytes;
}

absl::Status Fa4Attention::BackwardRun(cudaStream_t stream, const AttentionTile& tile, QueryRun run,
                                       const HeadGrid& grid, const Matrix& dout, const Matrix& lse,
                                       const Matrix& delta, const Matrix& dq, const Matrix& dk,
                                       const Matrix& dv) {
  const Fa4Kernel* kernel =
      KernelOf(fixed_order_ ? Fa4Kind::kBackwardFixed : Fa4Kind::kBackward, tile.head_dim, &run);
  const int64_t tiles = (run.count + kernel->tile_m() - 1) / kernel->tile_m();
  const int64_t padded = tiles * kernel->tile_m(), heads = grid.outer * grid.inner;
  const auto outer = static_cast<int32_t>(grid.outer), inner = static_cast<int32_t>(grid.inner);
  // Heads of the outer dimension that add to the same keys' gradients.
  const bool shared = fixed_order_ && grid.outer > 1 && grid.outer_rows == 0 && grid.outer_kv == 0;
  SEQPAR_ASSIGN_OR_RETURN(
      void* const scratch,
      scratch_->Take(stream,
                     CudaAttentionScratchBytes(run.count, heads, tile.head_dim, kernel->tile_m()) +
                         (shared ? kCudaAttentionTurnsBytes : 0),
                     "the sums of an attention gradient"));
  // Sums of dQ, log-sum-exps, deltas, and for fixed order the tiles' turns.
  BackwardSums sums{kernel->sum_order(), outer,  inner,   tile.head_dim, kernel->tile_m(),
                    run.count,           padded, nullptr, nullptr,       static_cast<float*>(scratch)};
  sums.lse = sums.sums + heads * padded * tile.head_dim;
  sums.delta = sums.lse + heads * padded;
  auto* const turns = reinterpret_cast<int32_t*>(sums.delta + heads * padded);
  int32_t* const kv_turns = turns + heads * tiles;
  const int64_t key_turns = KeyTurns(run.keys);

  const HeadPart q = Queries(tile, run, grid, tile.head_dim), one = Queries(tile, run, grid, 1),
                 kv = Keys(tile, run, grid);
  SEQPAR_CUDA_RETURN_IF_ERROR(PrepareBackward(stream, EachOf(one, lse), EachOf(one, delta), sums),
                              "prepare an attention gradient");
  // Last before the kernel, which may start while the kernel before it ends, and looks at its turns at once.
  if (fixed_order_) {
    const int64_t count = heads * tiles + (shared ? inner * key_turns : 0);
    SEQPAR_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(turns, 0, count * 4, stream),
                                "prepare an attention gradient");
  }
  const auto lines = [&](float* data, int64_t n) {
    return Fa4Lines{data, {outer, inner, static_cast<int32_t>(n)}, {inner * n, n}};
  };
  const Fa4Turns counters{turns, {outer, inner, static_cast<int32_t>(tiles)}, {inner * tiles, tiles, 1}};
  const Fa4Turns kv_counters{kv_turns, {outer, inner, static_cast<int32_t>(key_turns)}, {0, key_turns, 1}};
  SEQPAR_RETURN_IF_ERROR(kernel->Backward(
      stream, {RowsOf(q, tile.q), RowsOf(kv, tile.k), RowsOf(kv, tile.v), RowsOf(q, dout),
               lines(sums.lse, padded), lines(sums.delta, padded), lines(sums.sums, padded * tile.head_dim),
               ResultOf(PlacesOf(kv, dk), dk), ResultOf(PlacesOf(kv, dv), dv), counters, kv_counters,
               tile.scale, run.left, run.right, IsRounded(dk), shared ? 1 : 0}));
  const auto put = IsRounded(dq) ? &RoundQueryGradients : &AddQueryGradients;
  return ToStatus(put(stream, sums, tile.scale, EachOf(q, dq)), "add an attention gradient");
}

}  // namespace seqpar::cuda
