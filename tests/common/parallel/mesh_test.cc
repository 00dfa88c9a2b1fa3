#include "common/parallel/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace seqpar {
namespace {

using ::testing::ElementsAre;

TEST(MeshTest, TensorNeighboursAreClosest) {
  const Mesh mesh{.tensor = 2, .ulysses = 3, .ring = 2};
  EXPECT_EQ(mesh.size(), 12);
  EXPECT_EQ(mesh.CoordOf(0), (MeshCoord{.tensor = 0, .ulysses = 0, .ring = 0}));
  EXPECT_EQ(mesh.CoordOf(1), (MeshCoord{.tensor = 1, .ulysses = 0, .ring = 0}));
  EXPECT_EQ(mesh.CoordOf(2), (MeshCoord{.tensor = 0, .ulysses = 1, .ring = 0}));
  EXPECT_EQ(mesh.CoordOf(6), (MeshCoord{.tensor = 0, .ulysses = 0, .ring = 1}));
  for (int rank = 0; rank < mesh.size(); ++rank) EXPECT_EQ(mesh.RankOf(mesh.CoordOf(rank)), rank);
}

TEST(MeshTest, GroupsHoldTheRanksThatDifferInOneAxis) {
  const Mesh mesh{.tensor = 2, .ulysses = 3, .ring = 2};
  EXPECT_THAT(mesh.TensorGroup(9), ElementsAre(8, 9));
  EXPECT_THAT(mesh.UlyssesGroup(9), ElementsAre(7, 9, 11));
  EXPECT_THAT(mesh.RingGroup(9), ElementsAre(3, 9));
  EXPECT_THAT(Mesh{}.RingGroup(0), ElementsAre(0));
}

TEST(MeshTest, NamesOnlyTheAxesThatAreUsed) {
  EXPECT_EQ(Mesh{}.ToString(), "1");
  EXPECT_EQ((Mesh{.tensor = 2, .ulysses = 2, .ring = 4, .inner = 4}.ToString()), "T2 x U2 x R4");
  EXPECT_EQ((Mesh{.ulysses = 2, .ring = 4, .inner = 2}.ToString()), "U2 x R4 (inner 2)");
  EXPECT_EQ((Mesh{.ring = 8, .inner = 1}.ToString()), "R8");
}

}  // namespace
}  // namespace seqpar
