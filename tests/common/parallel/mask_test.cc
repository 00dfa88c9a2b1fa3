#include "common/parallel/mask.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace seqpar {
namespace {

using ::testing::ElementsAre;

struct MaskCase {
  MaskKind kind;
  int64_t left = -1;
  int64_t right = -1;
  std::vector<int64_t> documents = {};
};

// Over 61 tokens.
constexpr int64_t kTokens = 61;
const std::vector<MaskCase>& Cases() {
  static const auto* const cases = new std::vector<MaskCase>{
      {MaskKind::kFull},
      {MaskKind::kCausal},
      {MaskKind::kWindow, 5, 3},
      {MaskKind::kWindow, 0, 0},
      {MaskKind::kWindow, 1, 0},
      {MaskKind::kWindow, 7, -1},
      {MaskKind::kWindow, -1, 2},
      {MaskKind::kWindow, -1, -1},
      {MaskKind::kWindow, 500, 60},
      {MaskKind::kWindow, 0, 9},
      {MaskKind::kFull, -1, -1, {7, 1, 30, 23}},
      {MaskKind::kCausal, -1, -1, {1, 1, 1, 40, 18}},
      {MaskKind::kWindow, 4, 2, {29, 2, 30}},
      {MaskKind::kWindow, 3, -1, {29, 2, 30}},
  };
  return *cases;
}

Mask MakeMask(const MaskCase& c) { return Mask(c.kind, kTokens, c.left, c.right, c.documents); }

int64_t DocumentOf(const MaskCase& c, int64_t p) {
  int64_t document = 0, end = 0;
  for (int64_t length : c.documents) {
    end += length;
    if (p < end) return document;
    ++document;
  }
  return document;
}

// The definition, to the letter.
bool Sees(const MaskCase& c, int64_t query, int64_t key) {
  if (DocumentOf(c, query) != DocumentOf(c, key)) return false;
  switch (c.kind) {
    case MaskKind::kFull:
      return true;
    case MaskKind::kCausal:
      return key <= query;
    case MaskKind::kWindow:
      return (c.left == -1 || key >= query - c.left) && (c.right == -1 || key <= query + c.right);
  }
  return false;
}

std::vector<int64_t> PositionsOf(const TokenShare& share) {
  std::vector<int64_t> positions;
  for (int64_t i = 0; i < share.size(); ++i) positions.push_back(share.PositionAt(i));
  return positions;
}

// Shares of every shape: whole layouts, and lists whose strides do not match.
std::vector<TokenShare> Shares() {
  std::vector<TokenShare> shares;
  for (int ring : {1, 2, 3, 5}) {
    for (LayoutKind kind : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
      for (const TokenShare& share : RingShares(kind, kTokens, ring)) shares.push_back(share);
    }
  }
  shares.push_back(TokenShare({Segment{.begin = 3, .end = 4}, Segment{.begin = 9, .end = 40, .stride = 6}}));
  shares.push_back(
      TokenShare({Segment{.begin = 0, .end = 20, .stride = 9}, Segment{.begin = 33, .end = 39}}));
  shares.push_back(TokenShare());
  return shares;
}

TEST(MaskTest, LoAndHiAreTheFirstKeySeenAndOnePastTheLast) {
  for (const MaskCase& c : Cases()) {
    const Mask mask = MakeMask(c);
    double pairs = 0;
    for (int64_t p = 0; p < kTokens; ++p) {
      for (int64_t key = 0; key < kTokens; ++key) {
        ASSERT_EQ(Sees(c, p, key), mask.Lo(p) <= key && key < mask.Hi(p))
            << mask.ToString() << " query " << p << " key " << key;
        pairs += Sees(c, p, key) ? 1 : 0;
      }
    }
    EXPECT_EQ(mask.Pairs(), pairs) << mask.ToString();
  }
}

TEST(MaskTest, PairsOfLongSequencesAreExact) {
  constexpr int64_t kLong = 4'000'000;
  EXPECT_EQ(Mask(MaskKind::kFull, kLong).Pairs(), 1.6e13);
  EXPECT_EQ(Mask(MaskKind::kCausal, kLong).Pairs(), 8.000002e12);
  EXPECT_EQ(Mask(MaskKind::kFull, kLong, -1, -1, {kLong / 2, kLong / 2}).Pairs(), 8e12);
  const TokenShare all({Segment{.begin = 0, .end = kLong}});
  EXPECT_EQ(AttendedPairs(Mask(MaskKind::kCausal, kLong), all, all), 8.000002e12);
}

TEST(MaskTest, SaysWhatItIs) {
  EXPECT_EQ(Mask(MaskKind::kFull, 9).ToString(), "full");
  EXPECT_EQ(Mask(MaskKind::kWindow, 9, 4, -1).ToString(), "window (4, -1)");
  EXPECT_EQ(Mask(MaskKind::kCausal, 9, -1, -1, {4, 5}).ToString(), "causal, 2 documents");
  EXPECT_THAT(Mask(MaskKind::kCausal, 9, -1, -1, {4, 5}).document_starts(), ElementsAre(0, 4, 9));
  EXPECT_EQ(Mask(MaskKind::kCausal, 9).left(), -1);
  EXPECT_EQ(Mask(MaskKind::kCausal, 9).right(), 0);
}

TEST(MaskTest, AWindowPastTheSequenceHasNoEnd) {
  constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();
  for (const int64_t reach : {int64_t{9}, kEndless}) {
    const Mask mask(MaskKind::kWindow, 9, reach, reach);
    EXPECT_EQ(mask.left(), -1);
    EXPECT_EQ(mask.right(), -1);
    EXPECT_EQ(mask.Pairs(), 81);
    // Tokens 0, 2, ... of a ring of two: a window narrower than the stride would leave gaps.
    const TokenShare even({Segment{.begin = 0, .end = 9, .stride = 2}});
    EXPECT_THAT(AttendedKeys(mask, even, even), ElementsAre(IndexRange{0, 5}));
    EXPECT_EQ(AttendedPairs(mask, even, even), 25);
  }
  EXPECT_EQ(Mask(MaskKind::kWindow, 9, 8, 8).left(), 8);
}

TEST(MaskTest, RefusesDocumentsThatDoNotCoverTheSequence) {
  EXPECT_DEATH(Mask(MaskKind::kFull, 9, -1, -1, {4, 4}), "check failed");
  EXPECT_DEATH(Mask(MaskKind::kFull, 9, -1, -1, {9, 0}), "check failed");
  EXPECT_DEATH(Mask(MaskKind::kWindow, 9, -2, 0), "check failed");
}

class SharePairTest : public testing::TestWithParam<size_t> {};

TEST_P(SharePairTest, RangesPairsAndAttendedKeysFollowTheDefinition) {
  const MaskCase& c = Cases()[GetParam()];
  const Mask mask = MakeMask(c);
  for (const TokenShare& queries : Shares()) {
    const std::vector<int64_t> query_positions = PositionsOf(queries);
    for (const TokenShare& keys : Shares()) {
      const std::vector<int64_t> key_positions = PositionsOf(keys);
      const KeyRanges ranges = ComputeKeyRanges(mask, queries, keys);
      ASSERT_EQ(ranges.lo.size(), query_positions.size());
      ASSERT_EQ(ranges.hi.size(), query_positions.size());
      double pairs = 0;
      std::vector<bool> attended(key_positions.size(), false);
      for (size_t q = 0; q < query_positions.size(); ++q) {
        if (q > 0) {
          ASSERT_LE(ranges.lo[q - 1], ranges.lo[q]);
          ASSERT_LE(ranges.hi[q - 1], ranges.hi[q]);
        }
        for (size_t k = 0; k < key_positions.size(); ++k) {
          const bool sees = Sees(c, query_positions[q], key_positions[k]);
          ASSERT_EQ(sees, ranges.lo[q] <= static_cast<int>(k) && static_cast<int>(k) < ranges.hi[q]);
          if (sees) attended[k] = true;
          pairs += sees ? 1 : 0;
        }
      }
      ASSERT_EQ(ranges.pairs, pairs);
      ASSERT_EQ(AttendedPairs(mask, queries, keys), pairs);
      const Overlap overlap = pairs == 0 ? Overlap::kEmpty
                              : pairs == static_cast<double>(query_positions.size() * key_positions.size())
                                  ? Overlap::kFull
                                  : Overlap::kPartial;
      ASSERT_EQ(ranges.overlap, overlap);
      std::vector<IndexRange> expected;
      for (size_t k = 0; k < attended.size(); ++k) {
        if (!attended[k]) continue;
        const int64_t index = static_cast<int64_t>(k);
        if (expected.empty() || expected.back().end < index)
          expected.push_back({.begin = index, .end = index});
        expected.back().end = index + 1;
      }
      ASSERT_EQ(AttendedKeys(mask, queries, keys), expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Masks, SharePairTest, testing::Range<size_t>(0, 14), [](const auto& info) {
  return std::string("Case").append(std::to_string(info.param));
});

TEST(MaskTest, AllCasesAreInstantiated) { EXPECT_EQ(Cases().size(), 14u); }

}  // namespace
}  // namespace seqpar
