// What a GPU's attention is cut into, which needs no GPU: runs of queries by mask, grids of heads, the table
// of kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>
#include <vector>

#include "common/parallel/mask.h"
#include "worker/device/cuda/attention_table.h"
#include "worker/device/cuda/cudnn_pieces.h"
#include "worker/device/cuda/head_grid.h"
#include "worker/device/cuda/mask_runs.h"

namespace seqpar::cuda {
namespace {

constexpr int64_t kAny = 1 << 20;

// The keys that query i of a run sees by the run's own words, in the tile's indices.
IndexRange SeenBy(const QueryRun& run, int64_t i) {
  const int64_t aligned = i + run.keys - run.count;
  int64_t first = 0, last = run.keys - 1;
  if (run.mask == RunMask::kCausal) last = aligned;
  if (run.mask == RunMask::kWindow) {
    first = std::max<int64_t>(first, aligned - run.left);
    last = std::min<int64_t>(last, aligned + run.right);
  }
  return {run.first_key + first, run.first_key + last + 1};
}

void ExpectSameMask(const KeyRanges& ranges, const std::vector<QueryRun>& runs) {
  int64_t next = 0;
  for (const QueryRun& run : runs) {
    ASSERT_EQ(run.first, next);
    ASSERT_GT(run.count, 0);
    for (int64_t i = 0; i < run.count; ++i) {
      const int32_t lo = ranges.lo[next + i], hi = ranges.hi[next + i];
      if (run.mask == RunMask::kEmpty) {
        EXPECT_GE(lo, hi);
        continue;
      }
      ASSERT_LT(lo, hi);
      EXPECT_EQ(SeenBy(run, i), (IndexRange{lo, hi})) << "query " << next + i;
    }
    next += run.count;
  }
  EXPECT_EQ(next, static_cast<int64_t>(ranges.lo.size()));
}

// The same mask when its runs are cut shorter.
void ExpectSameMaskInParts(const KeyRanges& ranges, const std::vector<QueryRun>& runs) {
  for (const int64_t queries_max : {1, 7, 64}) {
    std::vector<QueryRun> parts;
    for (const QueryRun& run : runs) {
      if (run.mask == RunMask::kEmpty) {
        parts.push_back(run);
        continue;
      }
      for (const QueryRun& part : SplitRun(run, queries_max)) {
        EXPECT_EQ(part.mask, run.mask);
        EXPECT_LE(part.count, queries_max);
        EXPECT_GE(part.first_key, run.first_key);
        EXPECT_LE(part.first_key + part.keys, run.first_key + run.keys);
        parts.push_back(part);
      }
    }
    SCOPED_TRACE(queries_max);
    ExpectSameMask(ranges, parts);
  }
}

// The masks of runs that a mask comes to for two shares, after a look at every query.
std::vector<RunMask> MasksOf(const Mask& mask, const TokenShare& queries, const TokenShare& keys) {
  const KeyRanges ranges = ComputeKeyRanges(mask, queries, keys);
  const auto runs = CutIntoRuns(ranges, kAny);
  std::vector<RunMask> masks;
  if (!runs.has_value()) return masks;
  ExpectSameMask(ranges, *runs);
  ExpectSameMaskInParts(ranges, *runs);
  for (const QueryRun& run : *runs) masks.push_back(run.mask);
  return masks;
}

using Masks = std::vector<RunMask>;
const RunMask kEmpty = RunMask::kEmpty, kFull = RunMask::kFull, kCausal = RunMask::kCausal,
              kWindow = RunMask::kWindow;

TEST(MaskRunsTest, OneRankAndARing) {
  const TokenShare all({{0, 100, 1}}), first({{0, 50, 1}}), second({{50, 100, 1}});
  EXPECT_EQ(MasksOf(Mask(MaskKind::kFull, 100), all, all), (Masks{kFull}));
  const Mask causal(MaskKind::kCausal, 100);
  EXPECT_EQ(MasksOf(causal, all, all), (Masks{kCausal}));
  EXPECT_EQ(MasksOf(causal, second, second), (Masks{kCausal}));
  EXPECT_EQ(MasksOf(causal, second, first), (Masks{kFull}));
  EXPECT_EQ(MasksOf(causal, first, second), (Masks{kEmpty}));
  EXPECT_EQ(MasksOf(causal, all, first), (Masks{kCausal, kFull}));
  EXPECT_EQ(MasksOf(causal, all, second), (Masks{kEmpty, kCausal}));
}

TEST(MaskRunsTest, ZigzagSharesAreARunAChunk) {
  const Mask causal(MaskKind::kCausal, 80);
  const TokenShare outer({{0, 20, 1}, {60, 80, 1}}), inner({{20, 40, 1}, {40, 60, 1}});
  EXPECT_EQ(MasksOf(causal, outer, outer), (Masks{kCausal}));
  EXPECT_EQ(MasksOf(causal, outer, inner), (Masks{kEmpty, kFull}));
  EXPECT_EQ(MasksOf(causal, inner, outer), (Masks{kFull}));
}

TEST(MaskRunsTest, StripedSharesAreCausal) {
  const Mask causal(MaskKind::kCausal, 90);
  const TokenShare one({{0, 90, 3}}), two({{1, 90, 3}});
  EXPECT_EQ(MasksOf(causal, one, one), (Masks{kCausal}));
  EXPECT_EQ(MasksOf(causal, two, one), (Masks{kCausal}));
  EXPECT_EQ(MasksOf(causal, one, two), (Masks{kEmpty, kCausal}));
}

TEST(MaskRunsTest, Windows) {
  const TokenShare all({{0, 100, 1}});
  EXPECT_EQ(MasksOf(Mask(MaskKind::kWindow, 100, 30, 0), all, all), (Masks{kCausal, kWindow}));
  EXPECT_EQ(MasksOf(Mask(MaskKind::kWindow, 100, 30, 10), all, all), (Masks{kCausal, kWindow, kWindow}));
  EXPECT_EQ(MasksOf(Mask(MaskKind::kWindow, 100, 0, 0), all, all), (Masks{kWindow}));
  EXPECT_EQ(MasksOf(Mask(MaskKind::kWindow, 100, -1, 20), all, all), (Masks{kCausal, kFull}));
  // Keys that only the window's left edge still reaches.
  EXPECT_EQ(
      MasksOf(Mask(MaskKind::kWindow, 100, 30, 0), TokenShare({{40, 100, 1}}), TokenShare({{0, 40, 1}})),
      (Masks{kWindow, kEmpty}));
}

TEST(MaskRunsTest, DocumentsAreARunEach) {
  const TokenShare all({{0, 100, 1}});
  EXPECT_EQ(MasksOf(Mask(MaskKind::kCausal, 100, -1, -1, {40, 50, 10}), all, all),
            (Masks{kCausal, kCausal, kCausal}));
  EXPECT_EQ(MasksOf(Mask(MaskKind::kFull, 100, -1, -1, {40, 60}), all, all), (Masks{kFull, kFull}));
  // Of one and two tokens: whatever the runs, the mask is the same.
  MasksOf(Mask(MaskKind::kCausal, 100, -1, -1, {1, 1, 2, 1, 90, 1, 1, 3}), all, all);
}

TEST(MaskRunsTest, AChunkAmongQueriesThatSeeNothing) {
  KeyRanges ranges;
  for (int i = 0; i < 500; ++i) {
    ranges.lo.push_back(i < 130 ? 0 : i < 300 ? 20 : 299);
    ranges.hi.push_back(i < 130 ? 0 : i < 300 ? i : 299);
  }
  const auto runs = CutIntoRuns(ranges, kAny);
  ASSERT_TRUE(runs.has_value());
  EXPECT_EQ(*runs,
            (std::vector<QueryRun>{{kEmpty, 0, 130}, {kCausal, 130, 170, 20, 279}, {kEmpty, 300, 200}}));
  ExpectSameMask(ranges, *runs);
}

TEST(MaskRunsTest, NoMoreRunsThanAreAllowed) {
  const TokenShare all({{0, 100, 1}});
  const KeyRanges ranges = ComputeKeyRanges(Mask(MaskKind::kCausal, 100, -1, -1, {40, 50, 10}), all, all);
  EXPECT_FALSE(CutIntoRuns(ranges, 2).has_value());
  EXPECT_TRUE(CutIntoRuns(ranges, 3).has_value());
}

// Every (batch index, query head) once, each with the KV head of its group; whether a grid shares KV heads.
bool CheckGrids(const std::vector<HeadGrid>& grids, int64_t batch, const HeadRange& heads, int group) {
  std::set<std::pair<int64_t, int64_t>> seen;
  bool shares = false;
  for (const HeadGrid& grid : grids) {
    std::set<std::pair<int64_t, int64_t>> kv_seen;
    for (int64_t o = 0; o < grid.outer; ++o) {
      for (int64_t i = 0; i < grid.inner; ++i) {
        const int64_t row = grid.row + o * grid.outer_rows;
        const int64_t q = grid.q_head + o * grid.outer_q + i * grid.inner_q;
        const int64_t kv = grid.kv_head + o * grid.outer_kv + i;
        EXPECT_TRUE(row >= 0 && row < batch && q >= 0 && q < heads.q_heads());
        EXPECT_EQ(kv, (heads.q_begin + q) / group - heads.kv_begin);
        EXPECT_TRUE(seen.emplace(row, q).second);
        shares |= !kv_seen.emplace(row, kv).second;
      }
    }
  }
  EXPECT_EQ(static_cast<int64_t>(seen.size()), batch * heads.q_heads());
  return shares;
}

TEST(HeadGridTest, EveryHeadOnceWithItsKvHead) {
  for (const auto& [begin, end, group] : std::vector<std::tuple<int, int, int>>{{0, 4, 1},
                                                                                {3, 8, 1},
                                                                                {0, 8, 4},
                                                                                {4, 12, 4},
                                                                                {0, 8, 8},
                                                                                {2, 7, 3},
                                                                                {1, 2, 4},
                                                                                {5, 6, 3},
                                                                                {3, 9, 2}}) {
    for (const int64_t batch : {1, 3}) {
      const HeadRange heads = MakeHeadRange(begin, end, group);
      SCOPED_TRACE(testing::Message() << "[" << begin << ", " << end << ") by " << group);
      CheckGrids(HeadGrids(batch, heads, group, true), batch, heads, group);
      const auto apart = HeadGrids(batch, heads, group, false);
      EXPECT_FALSE(CheckGrids(apart, batch, heads, group));
      EXPECT_LE(apart.size(), static_cast<size_t>(group));
      for (const int64_t heads_max : {0, 1, 2, 5, 100}) {
        std::vector<HeadGrid> split;
        for (const HeadGrid& grid : HeadGrids(batch, heads, group, true)) {
          for (const HeadGrid& part : SplitGrid(grid, heads_max)) {
            EXPECT_LE(part.outer * part.inner, std::max<int64_t>(heads_max, 1));
            split.push_back(part);
          }
        }
        CheckGrids(split, batch, heads, group);
      }
    }
  }
}

TEST(HeadGridTest, WholeGroupsAreOneLaunch) {
  EXPECT_EQ(HeadGrids(1, MakeHeadRange(0, 32, 4), 4, true).size(), 1u);
  EXPECT_EQ(HeadGrids(5, MakeHeadRange(0, 32, 1), 1, true).size(), 1u);
}

// Every (query, key) of a run, by its own words, must be in one piece, and nothing else.
void ExpectSamePairs(const QueryRun& run, const std::vector<CudnnPiece>& pieces, int64_t block) {
  std::vector<std::vector<int>> times(run.count, std::vector<int>(run.keys, 0));
  for (const CudnnPiece& piece : pieces) {
    EXPECT_GT(piece.count, 0);
    EXPECT_GT(piece.keys, 0);
    EXPECT_LE(piece.count, block);
    if (piece.mask != CudnnMask::kBand) {
      EXPECT_LE(piece.keys, block);
    }
    if (piece.mask == CudnnMask::kCausal || piece.mask == CudnnMask::kAfter) {
      EXPECT_EQ(piece.keys, piece.count);
    }
    for (int64_t i = 0; i < piece.count; ++i) {
      for (int64_t j = 0; j < piece.keys; ++j) {
        if (piece.mask == CudnnMask::kCausal && j > i) continue;
        if ((piece.mask == CudnnMask::kAfter || piece.mask == CudnnMask::kBand) && j < i) continue;
        if (piece.mask == CudnnMask::kBand && j > i + piece.keys - piece.count) continue;
        ++times.at(piece.first - run.first + i).at(piece.first_key - run.first_key + j);
      }
    }
  }
  for (int64_t i = 0; i < run.count; ++i) {
    std::vector<int> expected(run.keys, 0);
    if (run.mask != RunMask::kEmpty) {
      const IndexRange seen = SeenBy(run, i);
      std::fill(expected.begin() + (seen.begin - run.first_key),
                expected.begin() + (seen.end - run.first_key), 1);
    }
    EXPECT_EQ(times[i], expected) << "query " << run.first + i;
  }
}

TEST(CudnnPiecesTest, HoldEveryPairOfARunOnce) {
  const TokenShare all({{0, 700, 1}}), late({{500, 700, 1}}), early({{0, 300, 1}});
  std::set<RunMask> seen;
  for (const Mask& mask :
       {Mask(MaskKind::kFull, 700), Mask(MaskKind::kCausal, 700), Mask(MaskKind::kWindow, 700, 90, 0),
        Mask(MaskKind::kWindow, 700, 200, 130), Mask(MaskKind::kWindow, 700, 0, 0),
        Mask(MaskKind::kWindow, 700, -1, 40), Mask(MaskKind::kCausal, 700, -1, -1, {1, 300, 399})}) {
    for (const auto& [queries, keys] :
         {std::pair{all, all}, {late, all}, {all, early}, {late, early}, {early, late}}) {
      const auto runs = CutIntoRuns(ComputeKeyRanges(mask, queries, keys), kAny);
      ASSERT_TRUE(runs.has_value());
      for (const QueryRun& run : *runs) {
        seen.insert(run.mask);
        for (const int64_t block : {128, 256, 1024}) ExpectSamePairs(run, CutIntoPieces(run, block), block);
      }
    }
  }
  EXPECT_EQ(seen.size(), 4u);
}

TEST(CudnnPiecesTest, SmallRunsAreLeft) {
  const auto left = [](const QueryRun& run) { return TooSmallForCudnn(run); };
  EXPECT_FALSE(left({RunMask::kFull, 0, 64, 0, 64}));
  EXPECT_TRUE(left({RunMask::kFull, 0, 63, 0, 1000}));
  EXPECT_TRUE(left({RunMask::kCausal, 0, 1000, 0, 63}));
  // A band of one key a query; then of two.
  EXPECT_TRUE(left({RunMask::kWindow, 0, 1000, 0, 1000, 0, 0}));
  EXPECT_FALSE(left({RunMask::kWindow, 0, 1000, 0, 1001, 1, 0}));
  EXPECT_FALSE(left({RunMask::kWindow, 0, 1000, 0, 1000, 0, kUnlimited}));
}

TEST(CudnnPiecesTest, FewShapes) {
  const auto shapes = [](const QueryRun& run, int64_t block) {
    std::set<std::tuple<CudnnMask, int64_t, int64_t>> all;
    for (const CudnnPiece& piece : CutIntoPieces(run, block))
      all.emplace(piece.mask, piece.count, piece.keys);
    return all.size();
  };
  for (const int64_t n : {16384, 65536, 100'003, 1'000'000}) {
    EXPECT_LE(shapes({RunMask::kFull, 0, n, 0, n}, 16384), 4u) << n;
    EXPECT_LE(shapes({RunMask::kCausal, 0, n, 0, n}, 16384), 4u) << n;
    EXPECT_LE(shapes({RunMask::kCausal, 0, n, 0, 2 * n}, 16384), 6u) << n;
  }
}

TEST(CudnnPiecesTest, ABlockIsTheMostThatFits) {
  for (const CudnnPass pass : {CudnnPass::kForward, CudnnPass::kBackward, CudnnPass::kBackwardFixed}) {
    for (const int head_dim : {8, 64, 128, 256}) {
      for (const int64_t bytes : {int64_t{16} << 20, int64_t{136} << 20}) {
        const int64_t block = CudnnBlock(pass, head_dim, bytes);
        EXPECT_EQ(block % 128, 0);
        EXPECT_LE(CudnnHeadBytes(pass, head_dim, block, block), bytes);
        EXPECT_GT(CudnnHeadBytes(pass, head_dim, 2 * block, 2 * block), bytes);
      }
    }
  }
}

AttentionKernel Choose(int capability, DType type, int head_dim, MaskShape mask,
                       const std::set<AttentionKernel>& there) {
  return ChooseAttention(capability, type, head_dim, mask,
                         [&](AttentionKernel kernel) { return there.count(kernel) > 0; });
}

TEST(AttentionTableTest, WhatGoesWhere) {
  const auto kRegular = MaskShape::kRegular;
  const AttentionKernel own = AttentionKernel::kTiledFloat32, fa4 = AttentionKernel::kFa4Sm90,
                        fa4_sm100 = AttentionKernel::kFa4Sm100, cudnn = AttentionKernel::kCudnn;
  const std::set<AttentionKernel> both = {fa4, cudnn}, all = {fa4, fa4_sm100, cudnn};
  for (const int head_dim : {64, 96, 128}) {
    EXPECT_EQ(Choose(90, DType::kBF16, head_dim, kRegular, both), fa4);
    EXPECT_EQ(Choose(90, DType::kBF16, head_dim, kRegular, {cudnn}), cudnn);
    EXPECT_EQ(Choose(90, DType::kBF16, head_dim, kRegular, {}), own);
    EXPECT_EQ(Choose(90, DType::kBF16, head_dim, MaskShape::kIrregular, both), own);
    EXPECT_EQ(Choose(90, DType::kF32, head_dim, kRegular, both), own);
    for (const int capability : {80, 86, 89, 100, 120}) {
      EXPECT_EQ(Choose(capability, DType::kBF16, head_dim, kRegular, both), cudnn);
      EXPECT_EQ(Choose(capability, DType::kBF16, head_dim, kRegular, {fa4}), own);
    }
    EXPECT_EQ(Choose(90, DType::kBF16, head_dim, kRegular, all), fa4);
    EXPECT_EQ(Choose(100, DType::kBF16, head_dim, kRegular, all), fa4_sm100);
    EXPECT_EQ(Choose(100, DType::kBF16, head_dim, MaskShape::kIrregular, all), own);
    EXPECT_EQ(Choose(100, DType::kF32, head_dim, kRegular, all), own);
    // Code for one architecture runs on no other, not even of its family.
    for (const int capability : {80, 86, 89, 103, 120}) {
      EXPECT_EQ(Choose(capability, DType::kBF16, head_dim, kRegular, all), cudnn);
    }
  }
  for (const int head_dim : {8, 32, 80, 112}) {
    EXPECT_EQ(Choose(100, DType::kBF16, head_dim, kRegular, all), cudnn);
    EXPECT_EQ(Choose(90, DType::kBF16, head_dim, kRegular, both), cudnn);
    EXPECT_EQ(Choose(80, DType::kBF16, head_dim, kRegular, both), cudnn);
  }
  for (const int head_dim : {160, 256}) {
    EXPECT_EQ(Choose(90, DType::kBF16, head_dim, kRegular, both), cudnn);
    EXPECT_EQ(Choose(80, DType::kBF16, head_dim, kRegular, both), own);
  }
  for (const int head_dim : {5, 36, 264}) {
    EXPECT_EQ(Choose(90, DType::kBF16, head_dim, kRegular, both), own);
  }
}

TEST(AttentionTableTest, CardsOfAKernel) {
  for (const int capability : {80, 90, 100, 103, 120}) {
    EXPECT_TRUE(IsForCapability(AttentionKernel::kTiledFloat32, capability));
    EXPECT_TRUE(IsForCapability(AttentionKernel::kCudnn, capability));
    EXPECT_EQ(IsForCapability(AttentionKernel::kFa4Sm90, capability), capability == 90);
    EXPECT_EQ(IsForCapability(AttentionKernel::kFa4Sm100, capability), capability == 100);
  }
}

}  // namespace
}  // namespace seqpar::cuda
