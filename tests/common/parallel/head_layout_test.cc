#include "common/parallel/head_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

HeadRange Range(int q_begin, int q_end, int kv_begin, int kv_end) {
  return HeadRange{.q_begin = q_begin, .q_end = q_end, .kv_begin = kv_begin, .kv_end = kv_end};
}

TEST(HeadLayoutTest, RangesMayStraddleKvGroups) {
  EXPECT_THAT(SplitHeads(0, 12, /*group=*/4, 4),
              ElementsAre(Range(0, 3, 0, 1), Range(3, 6, 0, 2), Range(6, 9, 1, 3), Range(9, 12, 2, 3)));
}

TEST(HeadLayoutTest, TheFirstRanksGetTheHeadsLeftOver) {
  EXPECT_THAT(SplitHeads(0, 7, /*group=*/1, 4),
              ElementsAre(Range(0, 2, 0, 2), Range(2, 4, 2, 4), Range(4, 6, 4, 6), Range(6, 7, 6, 7)));
  EXPECT_THAT(SplitHeads(0, 7, /*group=*/7, 3),
              ElementsAre(Range(0, 3, 0, 1), Range(3, 5, 0, 1), Range(5, 7, 0, 1)));
}

TEST(HeadLayoutTest, APartWithoutQueryHeadsHasNoKvHeads) {
  EXPECT_THAT(SplitHeads(4, 6, /*group=*/4, 3),
              ElementsAre(Range(4, 5, 1, 2), Range(5, 6, 1, 2), Range(6, 6, 1, 1)));
}

TEST(HeadLayoutTest, TensorFirstThenUlysses) {
  const HeadLayout layout(Mesh{.tensor = 2, .ulysses = 2}, /*heads=*/7, /*kv_heads=*/7);
  EXPECT_EQ(layout.OfTensor(0), Range(0, 4, 0, 4));
  EXPECT_EQ(layout.OfTensor(1), Range(4, 7, 4, 7));
  EXPECT_EQ(layout.Of(0, 0), Range(0, 2, 0, 2));
  EXPECT_EQ(layout.Of(0, 1), Range(2, 4, 2, 4));
  EXPECT_EQ(layout.Of(1, 0), Range(4, 6, 4, 6));
  EXPECT_EQ(layout.Of(1, 1), Range(6, 7, 6, 7));
}

TEST(HeadLayoutTest, TensorHoldersOfACopiedKvHead) {
  const HeadLayout layout(Mesh{.tensor = 4}, /*heads=*/12, /*kv_heads=*/3);
  EXPECT_THAT(layout.TensorHoldersOf(0), Pair(0, 2));
  EXPECT_THAT(layout.TensorHoldersOf(1), Pair(1, 3));
  EXPECT_THAT(layout.TensorHoldersOf(2), Pair(2, 4));
}

TEST(HeadLayoutTest, EveryMeshCoversEveryHeadOnce) {
  for (auto [heads, kv_heads] : {std::pair(8, 8), {8, 2}, {5, 5}, {7, 1}, {12, 3}, {32, 4}}) {
    for (int tensor = 1; tensor <= heads; ++tensor) {
      for (int ulysses = 1; tensor * ulysses <= heads; ++ulysses) {
        SCOPED_TRACE(testing::Message() << heads << "/" << kv_heads << " T" << tensor << " U" << ulysses);
        const HeadLayout layout(Mesh{.tensor = tensor, .ulysses = ulysses}, heads, kv_heads);
        int next = 0;
        for (int t = 0; t < tensor; ++t) {
          ASSERT_EQ(layout.OfTensor(t).q_begin, next);
          for (int u = 0; u < ulysses; ++u) {
            const HeadRange& range = layout.Of(t, u);
            ASSERT_EQ(range.q_begin, next);
            ASSERT_GT(range.q_heads(), 0);
            ASSERT_EQ(range.kv_begin, range.q_begin / layout.group());
            ASSERT_EQ(range.kv_end, (range.q_end - 1) / layout.group() + 1);
            next = range.q_end;
          }
          ASSERT_EQ(layout.OfTensor(t).q_end, next);
        }
        ASSERT_EQ(next, heads);
        for (int kv = 0; kv < kv_heads; ++kv) {
          const std::pair<int, int> holders = layout.TensorHoldersOf(kv);
          for (int t = 0; t < tensor; ++t) {
            const bool holds = layout.OfTensor(t).kv_begin <= kv && kv < layout.OfTensor(t).kv_end;
            ASSERT_EQ(holds, holders.first <= t && t < holders.second) << "kv " << kv << " tensor " << t;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace seqpar
