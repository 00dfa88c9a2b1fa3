#include "common/attention/strategies.h"

#include <set>
#include <string>

#include "common/base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/oracle/meshes.h"

namespace seqpar {
namespace {

TEST(StrategiesTest, AMeshIsRefusedWhereAndOnlyWhereItHasMoreRanksThanHeads) {
  int refused = 0;
  for (const Mesh& mesh : AllMeshes(8)) {
    for (const auto& [heads, kv_heads] : MatrixHeads()) {
      const absl::Status status = CheckMesh(StrategyKind::kHybrid, mesh, heads);
      const bool fits = mesh.tensor * mesh.ulysses <= heads;
      EXPECT_EQ(status.ok(), fits) << mesh.ToString() << " over " << heads << " heads: " << status;
      if (fits) continue;
      ++refused;
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      ASSERT_EQ(ViolationsOf(status).size(), 1u);
      EXPECT_FALSE(ViolationsOf(status)[0].nearest.empty()) << mesh.ToString();
    }
  }
  EXPECT_EQ(refused, 10 + 4);  // of five heads, and of seven
}

TEST(StrategiesTest, MoreRanksThanHeadsAreRefusedWithTheNearest) {
  const absl::Status status = CheckMesh(StrategyKind::kUlysses, {1, 4, 1, 1}, 3);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::vector<Violation> violations = ViolationsOf(status);
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_EQ(violations[0].field, "parallelism.ulysses");
  EXPECT_EQ(violations[0].nearest, "tensor 1 x ulysses 3");
}

TEST(StrategiesTest, EveryViolationAtOnce) {
  const absl::Status status = CheckMesh(StrategyKind::kRing, {2, 0, 6, 4}, 8);
  std::set<std::string> fields;
  for (const Violation& violation : ViolationsOf(status)) fields.insert(violation.field);
  EXPECT_THAT(fields, testing::ElementsAre("parallelism.inner", "parallelism.tensor", "parallelism.ulysses"));
}

TEST(StrategiesTest, MeshesHaveTheNameOfTheirOnlyAxis) {
  EXPECT_EQ(StrategyOfMesh({4, 1, 1, 1}, CoreKind::kRing), StrategyKind::kMegatronSp);
  EXPECT_EQ(StrategyOfMesh({1, 4, 1, 1}, CoreKind::kGather), StrategyKind::kUlysses);
  EXPECT_EQ(StrategyOfMesh({1, 1, 4, 2}, CoreKind::kRing), StrategyKind::kRing);
  EXPECT_EQ(StrategyOfMesh({1, 1, 4, 1}, CoreKind::kGather), StrategyKind::kGather);
  EXPECT_EQ(StrategyOfMesh({1, 2, 2, 1}, CoreKind::kRing), StrategyKind::kHybrid);
  EXPECT_EQ(StrategyOfMesh({2, 2, 1, 1}, CoreKind::kRing), StrategyKind::kHybrid);
}

}  // namespace
}  // namespace seqpar
