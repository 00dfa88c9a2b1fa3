#include "coordinator/planner/shapes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/coordinator/planner/clusters.h"

namespace seqpar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(WorldSizes, FollowWorkersAndDegrees) {
  const JobSpec job = TextJob();  // 8 heads
  EXPECT_THAT(WorldSizes(job, 5), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(WorldSizes(WithWorkers(job, 2, 3), 5), ElementsAre(2, 3));
  EXPECT_THAT(WorldSizes(WithStrategy(job, StrategyKind::kUlysses), 100),
              ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(WorldSizes(WithStrategy(job, StrategyKind::kMegatronSp, 4), 100), ElementsAre(4));
  EXPECT_THAT(WorldSizes(WithStrategy(job, StrategyKind::kRing, 0, 0, 6), 5), IsEmpty());
  const JobSpec of_six = WithWorkers(WithStrategy(job, StrategyKind::kRing, 0, 0, 6), 1, 4);
  EXPECT_THAT(WorldSizes(of_six, 8), IsEmpty());  // what its tenant may hold is said in workers.max
  EXPECT_EQ(WhyNoWorldSize(of_six),
            "strategy ring with these degrees makes 6 ranks; workers allow 1 to 4; nearest: workers.max 6");
  EXPECT_THAT(WorldSizes(WithStrategy(job, StrategyKind::kHybrid), 16),
              ElementsAre(4, 6, 8, 9, 10, 12, 14, 15, 16));
  EXPECT_THAT(WorldSizes(WithStrategy(job, StrategyKind::kHybrid, 0, 0, 3), 13), ElementsAre(6, 9, 12));
  EXPECT_THAT(WorldSizes(WithStrategy(job, StrategyKind::kHybrid, 2, 0, 3), 13), ElementsAre(6));
}

// Each that is said to be one has a mesh, and the others have none: whatever a job fixes.
TEST(WorldSizes, AreThoseThatHaveShapes) {
  for (const StrategyKind strategy : {StrategyKind::kMegatronSp, StrategyKind::kUlysses, StrategyKind::kRing,
                                      StrategyKind::kGather, StrategyKind::kHybrid}) {
    for (int degrees = 0; degrees < 4 * 4 * 4; ++degrees) {
      const JobSpec job = WithStrategy(TextJob(), strategy, degrees % 4, degrees / 4 % 4, degrees / 16);
      const std::vector<int> sizes = WorldSizes(job, 16);
      for (int ranks = 1; ranks <= 16; ++ranks) {
        const ShapeSet set = ShapesOf(job, ranks, 0);
        const bool has = !set.shapes.empty();
        const bool said = std::find(sizes.begin(), sizes.end(), ranks) != sizes.end();
        EXPECT_TRUE(said ? has || !set.too_few_heads.empty() : !has)
            << StrategyName(strategy) << " " << degrees % 4 << " " << degrees / 4 % 4 << " " << degrees / 16
            << ", " << ranks << " ranks";
      }
    }
  }
}

// Every mesh of 12 ranks whose heads suffice, each once, and the others counted.
TEST(ShapesOf, EnumeratesEveryMesh) {
  const ShapeSet set = ShapesOf(TextJob(), 12, 0);
  std::set<std::pair<int, int>> meshes, refused;
  for (const Shape& shape : set.shapes) {
    EXPECT_EQ(shape.mesh.size(), 12);
    meshes.insert({shape.mesh.tensor, shape.mesh.ulysses});
  }
  for (const Mesh& mesh : set.too_few_heads) refused.insert({mesh.tensor, mesh.ulysses});
  for (int t : {1, 2, 3, 4, 6, 12}) {
    for (int u : {1, 2, 3, 4, 6, 12}) {
      if (12 % (t * u) != 0) continue;
      EXPECT_EQ(meshes.count({t, u}), t * u <= 8 ? 1u : 0u) << t << " " << u;
      EXPECT_EQ(refused.count({t, u}), t * u <= 8 ? 0u : 1u) << t << " " << u;
    }
  }
}

TEST(ShapesOf, LayoutsAndCoresOfARing) {
  std::set<std::string> names;
  for (const Shape& shape : ShapesOf(WithStrategy(TextJob(), StrategyKind::kRing), 8, 4).shapes) {
    EXPECT_EQ(shape.core, CoreKind::kRing);
    names.insert(shape.mesh.ToString() + " " + LayoutName(shape.layout));
  }
  EXPECT_THAT(names, ElementsAre("R8 (inner 4) contiguous", "R8 (inner 4) striped", "R8 (inner 4) zigzag",
                                 "R8 contiguous", "R8 striped", "R8 zigzag"));
  for (const Shape& shape : ShapesOf(WithStrategy(TextJob(), StrategyKind::kGather), 8, 4).shapes) {
    EXPECT_EQ(shape.core, CoreKind::kGather);
    EXPECT_EQ(shape.mesh.inner, 8);
  }
  for (const Shape& shape : ShapesOf(WithStrategy(TextJob(), StrategyKind::kUlysses), 8, 4).shapes) {
    EXPECT_EQ(shape.layout, LayoutKind::kContiguous);
    EXPECT_EQ(shape.mesh.inner, 1);
  }
}

// A window narrower than the ring would make every key of a striped share a piece of its own.
TEST(ShapesOf, NarrowWindowsAreNotStriped) {
  constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();
  for (const auto& [left, right] :
       std::vector<std::pair<int64_t, int64_t>>{{5, 0}, {7, 0}, {0, 7}, {kEndless, kEndless}}) {
    JobSpec job = WithWindow(TextJob(), left);
    job.mask.right = right;
    bool striped = false;
    for (const Shape& shape : ShapesOf(job, 8, 0).shapes) {
      striped = striped || (shape.mesh.ring == 8 && shape.layout == LayoutKind::kStriped);
    }
    EXPECT_EQ(striped, left != 5) << left << " " << right;
  }
}

}  // namespace
}  // namespace seqpar
