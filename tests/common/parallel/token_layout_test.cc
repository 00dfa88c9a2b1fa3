#include "common/parallel/token_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/parallel/mask.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;

constexpr LayoutKind kLayouts[] = {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped};

std::vector<int64_t> PositionsOf(const TokenShare& share) {
  std::vector<int64_t> positions;
  for (const Segment& segment : share.segments()) {
    for (int64_t i = 0; i < segment.size(); ++i) positions.push_back(segment.PositionAt(i));
  }
  return positions;
}

Segment Strided(int64_t begin, int64_t end, int64_t stride) {
  return Segment{.begin = begin, .end = end, .stride = stride};
}

TEST(TokenShareTest, EqualTokenListsAreEqualValues) {
  EXPECT_EQ(TokenShare({Strided(0, 3, 1), Strided(3, 3, 1), Strided(3, 9, 1)}),
            TokenShare({Strided(0, 9, 1)}));
  EXPECT_EQ(TokenShare({Strided(1, 12, 5)}), TokenShare({Strided(1, 16, 5)}));
  EXPECT_EQ(TokenShare({Strided(1, 2, 5), Strided(6, 12, 5)}), TokenShare({Strided(1, 12, 5)}));
  EXPECT_THAT(TokenShare({Strided(3, 4, 1), Strided(12, 13, 1)}).segments(),
              ElementsAre(Strided(3, 4, 1), Strided(12, 13, 1)));
  EXPECT_THAT(TokenShare({Strided(7, 7, 1)}).segments(), ElementsAre());
}

TEST(TokenShareTest, RefusesSegmentsThatDoNotAscend) {
  EXPECT_TRUE(TokenShare::Ascends({Strided(0, 3, 1), Strided(2, 2, 1), Strided(3, 9, 2)}));
  EXPECT_FALSE(TokenShare::Ascends({Strided(0, 3, 1), Strided(2, 4, 1)}));
  EXPECT_FALSE(TokenShare::Ascends({Strided(0, 9, 4), Strided(6, 7, 1)}));
  EXPECT_FALSE(TokenShare::Ascends({Strided(4, 6, 1), Strided(0, 2, 1)}));
  EXPECT_FALSE(TokenShare::Ascends({Strided(-1, 6, 1)}));
  EXPECT_FALSE(TokenShare::Ascends({Strided(0, 6, 0)}));
  EXPECT_DEATH(TokenShare({Strided(4, 6, 1), Strided(0, 2, 1)}), "check failed");
}

TEST(TokenShareTest, IndexesPositionsAndSlices) {
  const TokenShare share({Strided(2, 5, 1), Strided(10, 30, 7), Strided(40, 41, 1)});
  const std::vector<int64_t> positions = PositionsOf(share);
  ASSERT_THAT(positions, ElementsAre(2, 3, 4, 10, 17, 24, 40));
  ASSERT_EQ(share.size(), 7);
  for (int64_t i = 0; i < share.size(); ++i) EXPECT_EQ(share.PositionAt(i), positions[i]);
  for (int64_t p = 0; p < 50; ++p) {
    EXPECT_EQ(share.LowerBound(p),
              std::lower_bound(positions.begin(), positions.end(), p) - positions.begin());
  }
  for (int64_t begin = 0; begin <= 7; ++begin) {
    for (int64_t end = begin; end <= 7; ++end) {
      EXPECT_EQ(PositionsOf(share.Slice(begin, end)),
                std::vector<int64_t>(positions.begin() + begin, positions.begin() + end));
    }
  }
  const std::vector<TokenShare> parts = share.Split(3);
  EXPECT_THAT(PositionsOf(parts[0]), ElementsAre(2, 3, 4));
  EXPECT_THAT(PositionsOf(parts[1]), ElementsAre(10, 17));
  EXPECT_THAT(PositionsOf(parts[2]), ElementsAre(24, 40));
}

TEST(RingSharesTest, FollowTheirDefinitions) {
  EXPECT_THAT(RingShares(LayoutKind::kContiguous, 10, 4),
              ElementsAre(TokenShare({Strided(0, 3, 1)}), TokenShare({Strided(3, 6, 1)}),
                          TokenShare({Strided(6, 8, 1)}), TokenShare({Strided(8, 10, 1)})));
  // Chunks 0-1, 2-3, 4, 5.
  EXPECT_THAT(RingShares(LayoutKind::kZigzag, 6, 2),
              ElementsAre(TokenShare({Strided(0, 2, 1), Strided(5, 6, 1)}), TokenShare({Strided(2, 5, 1)})));
  EXPECT_THAT(RingShares(LayoutKind::kStriped, 7, 3),
              ElementsAre(TokenShare({Strided(0, 7, 3)}), TokenShare({Strided(1, 5, 3)}),
                          TokenShare({Strided(2, 6, 3)})));
  EXPECT_STREQ(LayoutName(LayoutKind::kContiguous), "contiguous");
  EXPECT_STREQ(LayoutName(LayoutKind::kZigzag), "zigzag");
  EXPECT_STREQ(LayoutName(LayoutKind::kStriped), "striped");
}

TEST(RingSharesTest, SharesDifferByAtMostOneToken) {
  for (LayoutKind kind : kLayouts) {
    for (int64_t tokens : {0, 1, 5, 16, 31, 131, 4099}) {
      for (int ring = 1; ring <= 8; ++ring) {
        int64_t least = tokens, most = 0;
        for (const TokenShare& share : RingShares(kind, tokens, ring)) {
          least = std::min(least, share.size());
          most = std::max(most, share.size());
        }
        EXPECT_LE(most - least, 1) << LayoutName(kind) << " " << tokens << " over " << ring;
      }
    }
  }
}

TEST(RingSharesTest, ZigzagBalancesCausalWork) {
  for (int64_t tokens : {16, 31, 131, 4099, 35149}) {
    const Mask mask(MaskKind::kCausal, tokens);
    const TokenShare all({Strided(0, tokens, 1)});
    for (int ring = 1; ring <= 8; ++ring) {
      double least = mask.Pairs(), most = 0;
      for (const TokenShare& share : RingShares(LayoutKind::kZigzag, tokens, ring)) {
        const double pairs = AttendedPairs(mask, share, all);
        least = std::min(least, pairs);
        most = std::max(most, pairs);
      }
      EXPECT_LT(most - least, 2.0 * tokens) << tokens << " over " << ring;
    }
  }
}

// Every token exactly once over the ranks; each rank's positions ascend; groups are the unions of their
// ranks.
void ExpectWhole(const TokenLayout& layout) {
  const Mesh& mesh = layout.mesh();
  std::vector<int> seen(layout.tokens(), 0);
  for (int ring = 0; ring < mesh.ring; ++ring) {
    std::vector<int64_t> ring_positions;
    for (int ulysses = 0; ulysses < mesh.ulysses; ++ulysses) {
      std::vector<int64_t> group_positions;
      for (int tensor = 0; tensor < mesh.tensor; ++tensor) {
        const TokenShare& share =
            layout.OfRank(mesh.RankOf({.tensor = tensor, .ulysses = ulysses, .ring = ring}));
        for (int64_t p : PositionsOf(share)) {
          ++seen[p];
          group_positions.push_back(p);
        }
      }
      ASSERT_EQ(group_positions, PositionsOf(layout.OfTensorGroup(ring, ulysses)));
      ring_positions.insert(ring_positions.end(), group_positions.begin(), group_positions.end());
    }
    ASSERT_EQ(ring_positions, PositionsOf(layout.OfRing(ring)));
    ASSERT_TRUE(std::is_sorted(ring_positions.begin(), ring_positions.end()));
  }
  for (int64_t p = 0; p < layout.tokens(); ++p) ASSERT_EQ(seen[p], 1) << "token " << p;
}

TEST(TokenLayoutTest, EveryTokenExactlyOnceAndRoundTripsThroughShares) {
  for (LayoutKind kind : kLayouts) {
    for (int64_t tokens : {3, 31, 131, 4099}) {
      for (int ring = 1; ring <= 8; ++ring) {
        for (auto [ulysses, tensor] : {std::pair(1, 1), {3, 1}, {1, 2}, {2, 3}}) {
          SCOPED_TRACE(testing::Message() << LayoutName(kind) << " " << tokens << " R" << ring << " U"
                                          << ulysses << " T" << tensor);
          const Mesh mesh{.tensor = tensor, .ulysses = ulysses, .ring = ring, .inner = ring};
          const TokenLayout layout(mesh, kind, tokens);
          ASSERT_NO_FATAL_FAILURE(ExpectWhole(layout));
          std::vector<TokenShare> shares;
          for (int rank = 0; rank < mesh.size(); ++rank) shares.push_back(layout.OfRank(rank));
          const TokenLayout again(mesh, shares);
          ASSERT_EQ(again.tokens(), tokens);
          for (int r = 0; r < ring; ++r) {
            ASSERT_EQ(again.OfRing(r), layout.OfRing(r));
            for (int u = 0; u < ulysses; ++u)
              ASSERT_EQ(again.OfTensorGroup(r, u), layout.OfTensorGroup(r, u));
          }
        }
      }
    }
  }
}

// --- every position exactly once ---

std::vector<Segment> SegmentsOf(const TokenLayout& layout) {
  std::vector<Segment> segments;
  for (int rank = 0; rank < layout.mesh().size(); ++rank) {
    const std::vector<Segment>& its = layout.OfRank(rank).segments();
    segments.insert(segments.end(), its.begin(), its.end());
  }
  return segments;
}

// By a look at each position; for segments of one stride.
bool CoverByCounting(const std::vector<Segment>& segments) {
  std::vector<int64_t> positions;
  for (const Segment& segment : segments) {
    for (int64_t i = 0; i < segment.size(); ++i) positions.push_back(segment.PositionAt(i));
  }
  std::sort(positions.begin(), positions.end());
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

TEST(ExactlyOnceTest, EveryLayoutOfAnyLengthIs) {
  // 2^62: no loop over tokens comes to its end.
  for (const int64_t tokens : {int64_t{0}, int64_t{1}, int64_t{5}, int64_t{131}, int64_t{1} << 62}) {
    for (const LayoutKind kind : kLayouts) {
      for (const Mesh& mesh :
           {Mesh{1, 1, 1, 1}, Mesh{2, 1, 1, 1}, Mesh{1, 3, 1, 1}, Mesh{1, 1, 7, 1}, Mesh{2, 2, 3, 3}}) {
        const std::vector<Segment> segments = SegmentsOf(TokenLayout(mesh, kind, tokens));
        EXPECT_EQ(WhyNotExactlyOnce(segments), "") << mesh.ToString() << " " << LayoutName(kind);
      }
    }
  }
}

TEST(ExactlyOnceTest, AgreesWithCountingWhateverIsChanged) {
  int refused = 0, taken = 0;
  for (const LayoutKind kind : kLayouts) {
    for (const int64_t tokens : {1, 2, 5, 12, 13}) {
      const std::vector<Segment> segments = SegmentsOf(TokenLayout(Mesh{1, 2, 3, 1}, kind, tokens));
      for (size_t i = 0; i < segments.size(); ++i) {
        for (const int64_t begin : {-3, -1, 0, 1, 3}) {
          for (const int64_t end : {-3, -1, 0, 1, 3}) {
            std::vector<Segment> changed = segments;
            changed[i].begin = std::max<int64_t>(changed[i].begin + begin, 0);
            changed[i].end += end;
            const std::string why = WhyNotExactlyOnce(changed);
            EXPECT_EQ(why.empty(), CoverByCounting(changed)) << why;
            ++(why.empty() ? taken : refused);
          }
        }
      }
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(taken, 100);
}

TEST(ExactlyOnceTest, SaysWhatIsWrong) {
  EXPECT_EQ(WhyNotExactlyOnce({Strided(0, 3, 1), Strided(4, 6, 1)}), "position 5 is not among them");
  EXPECT_EQ(WhyNotExactlyOnce({Strided(0, 3, 1), Strided(2, 4, 1), Strided(5, 6, 1)}),
            "position 2 comes twice");
  EXPECT_EQ(WhyNotExactlyOnce({Strided(0, 3, 2), Strided(3, 4, 2), Strided(2, 3, 2)}),
            "position 2 comes twice");
  EXPECT_EQ(WhyNotExactlyOnce({Strided(0, 2, 3), Strided(2, 5, 3), Strided(2, 5, 3)}),
            "position 1 is missing");
  EXPECT_EQ(WhyNotExactlyOnce({Strided(0, 4, 2), Strided(1, 2, 1)}), "strides 2 and 1 together");
}

}  // namespace
}  // namespace seqpar
