#include "coordinator/planner/ring_cost.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

TEST(RingCost, PairsAreThoseOfTheMask) {
  const std::vector<int64_t> documents = {700, 1, 900, 400};
  for (LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    for (const Mask& mask :
         {Mask(MaskKind::kFull, 2001), Mask(MaskKind::kCausal, 2001), Mask(MaskKind::kWindow, 2001, 37, 5),
          Mask(MaskKind::kCausal, 2001, -1, -1, documents),
          Mask(MaskKind::kWindow, 2001, 500, 0, documents)}) {
      const RingCost cost = MakeRingCost(mask, layout, CoreKind::kRing, 7, std::vector<int>(7, 0));
      const std::vector<TokenShare> shares = RingShares(layout, 2001, 7);
      const TokenShare all({{0, 2001, 1}});
      for (int r = 0; r < 7; ++r)
        EXPECT_EQ(cost.pairs[r], AttendedPairs(mask, shares[r], all)) << mask.ToString();
    }
  }
}

TEST(RingCost, CausalZigzagPassesThreeQuartersOfTheRing) {
  const auto sent = [](MaskKind mask, LayoutKind layout) {
    int64_t keys = 0;
    for (const RingLoad& load :
         MakeRingCost(Mask(mask, 6400), layout, CoreKind::kRing, 8, std::vector<int>(8, 0)).loads) {
      keys += load.forward.keys();
    }
    return keys;
  };
  EXPECT_EQ(sent(MaskKind::kFull, LayoutKind::kZigzag), 7 * 6400);
  EXPECT_EQ(sent(MaskKind::kCausal, LayoutKind::kZigzag), 7 * 6400 * 3 / 4);
  EXPECT_EQ(sent(MaskKind::kCausal, LayoutKind::kContiguous), 7 * 6400 / 2);
}

// Large rings are counted by what sampled ranks receive: near the exact count that small rings get.
TEST(RingCost, SampledRingsAreNearExactOnes) {
  const Mask mask(MaskKind::kCausal, 1 << 16);
  for (LayoutKind layout : {LayoutKind::kZigzag, LayoutKind::kStriped}) {
    for (CoreKind core : {CoreKind::kRing, CoreKind::kGather}) {
      const RingCost exact = MakeRingCost(mask, layout, core, 32, std::vector<int>(32, 0));
      const RingCost sampled = MakeRingCost(mask, layout, core, 33, std::vector<int>(33, 0));
      const auto most = [](const RingCost& cost) {
        int64_t keys = 0;
        for (const RingLoad& load : cost.loads) keys = std::max(keys, load.forward.keys());
        return static_cast<double>(keys);
      };
      EXPECT_NEAR(most(sampled) / most(exact), 1, 0.35) << LayoutName(layout) << " " << CoreName(core);
      EXPECT_EQ(exact.loads.size(), 32u);
      EXPECT_NEAR(static_cast<double>(sampled.loads[0].buffer_keys),
                  static_cast<double>(exact.loads[0].buffer_keys),
                  0.1 * static_cast<double>(exact.loads[0].buffer_keys));
    }
  }
}

TEST(RingCost, KeysThatCrossNodes) {
  const Mask mask(MaskKind::kFull, 8000);
  const std::vector<int> nodes = {0, 0, 0, 0, 1, 1, 1, 1};
  const RingCost plain = MakeRingCost(mask, LayoutKind::kContiguous, CoreKind::kRing, 8, nodes);
  const RingCost nested = MakeRingCost(mask, LayoutKind::kContiguous, CoreKind::kRing, 4, nodes);
  EXPECT_EQ(plain.LoadOf(3).forward.far_keys, 7000);  // the last of a node passes everything on
  EXPECT_EQ(plain.LoadOf(1).forward.far_keys, 0);
  for (int r = 0; r < 8; ++r) {
    EXPECT_EQ(nested.LoadOf(r).forward.far_keys, 1000);  // R / inner - 1 shares
    EXPECT_EQ(nested.LoadOf(r).forward.keys(), 7000);
  }
}

TEST(RingCost, LateKeysAreAQuarterOfACausalSharesOwnPairs) {
  const int64_t tokens = 4096;
  const auto late = [&](LayoutKind layout, MaskKind mask, int ring) {
    const RingCost cost =
        MakeRingCost(Mask(mask, tokens), layout, CoreKind::kRing, ring, std::vector<int>(ring, 0));
    return cost.late_pairs / cost.own_pairs;
  };
  for (const LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    EXPECT_NEAR(late(layout, MaskKind::kCausal, 4), 0.25, 0.002) << LayoutName(layout);
    EXPECT_NEAR(late(layout, MaskKind::kFull, 4), 0.5, 0.002) << LayoutName(layout);
    EXPECT_EQ(late(layout, MaskKind::kCausal, 1), 0);
  }
}

// Against the ranges that the kernel is really called with.
TEST(RingCost, CallsAreThoseOfTheSchedule) {
  const int64_t tokens = 2400;
  const int ring = 4;
  for (LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    for (const Mask& mask : {Mask(MaskKind::kFull, tokens), Mask(MaskKind::kCausal, tokens),
                             Mask(MaskKind::kWindow, tokens, 300, 0)}) {
      const RingCost cost =
          MakeRingCost(mask, layout, CoreKind::kRing, ring, std::vector<int>(ring, 0), true);
      const std::vector<TokenShare> shares = RingShares(layout, tokens, ring);
      const TokenShare& mine =
          shares[std::max_element(cost.pairs.begin(), cost.pairs.end()) - cost.pairs.begin()];
      double queries = 0, keys = 0, edges = 0;
      for (const TokenShare& owner : shares) {
        for (const Segment& segment : owner.segments()) {
          const KeyRanges ranges = ComputeKeyRanges(mask, mine, TokenShare({segment}));
          if (ranges.overlap == Overlap::kEmpty) continue;
          queries += static_cast<double>(mine.size());
          keys += static_cast<double>(segment.size());
          for (size_t i = 0; i < ranges.lo.size(); ++i) {
            if (ranges.lo[i] == ranges.hi[i]) continue;
            edges += (ranges.lo[i] > 0) + (ranges.hi[i] < segment.size());
          }
        }
      }
      EXPECT_EQ(cost.query_rows, queries) << mask.ToString() << LayoutName(layout);
      EXPECT_EQ(cost.key_rows, keys) << mask.ToString() << LayoutName(layout);
      EXPECT_NEAR(cost.edges, edges, 0.06 * edges + 1) << mask.ToString() << LayoutName(layout);
    }
  }
}

TEST(RingCost, CallsAreNotCountedUnasked) {
  const RingCost cost =
      MakeRingCost(Mask(MaskKind::kCausal, 100), LayoutKind::kZigzag, CoreKind::kRing, 2, {0, 0});
  EXPECT_EQ(cost.query_rows, 0);
  EXPECT_EQ(cost.edges, 0);
  EXPECT_EQ(cost.mean_pairs, 100 * 101 / 4.0);
}

}  // namespace
}  // namespace seqpar
