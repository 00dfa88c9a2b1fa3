#include "common/layers/layer_scratch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace seqpar {
namespace {

struct Block {
  int64_t offset, size;
};

bool Apart(const Block& a, const Block& b) {
  return a.offset + a.size <= b.offset || b.offset + b.size <= a.offset;
}

std::vector<LayerScratchSizes> AllSizes() {
  std::vector<LayerScratchSizes> all;
  const std::vector<int64_t> sizes = {0, 64, 192, 640};
  for (const int64_t attention : sizes) {
    for (const int64_t pieces : sizes) {
      for (const int64_t rows : sizes) {
        for (const int64_t core : sizes) all.push_back({attention, pieces, rows, core});
      }
    }
  }
  return all;
}

TEST(LayerScratchTest, WhatIsInUseTogetherLiesApart) {
  for (const LayerScratchSizes& sizes : AllSizes()) {
    for (const bool inspect : {false, true}) {
      const LayerScratchPlaces p = PlaceLayerScratch(sizes, inspect);
      const Block attention{p.attention, sizes.attention}, pieces{p.pieces, sizes.pieces},
          rows{p.rows, sizes.rows}, core{p.core, sizes.core};
      EXPECT_TRUE(Apart(attention, rows)) << "projections";
      EXPECT_TRUE(Apart(attention, core)) << "the attention core";
      EXPECT_TRUE(Apart(pieces, rows)) << "the MLP";
      EXPECT_TRUE(!inspect || Apart(rows, core)) << "projections while the core is looked at";
      for (const Block& block : {attention, pieces, rows, core}) {
        EXPECT_GE(block.offset, 0);
        EXPECT_LE(block.offset + block.size, p.bytes);
      }
    }
  }
}

TEST(LayerScratchTest, TakesNoMoreThanWhatIsInUseTogether) {
  for (const LayerScratchSizes& sizes : AllSizes()) {
    const int64_t most =
        std::max({sizes.attention + sizes.rows, sizes.attention + sizes.core, sizes.pieces + sizes.rows});
    EXPECT_EQ(PlaceLayerScratch(sizes, false).bytes, most);
  }
}

}  // namespace
}  // namespace seqpar
