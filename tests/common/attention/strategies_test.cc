#include "common/attention/strategies.h"

#include <cstdlib>
#include <set>
#include <string>

#include "common/base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/attention/attention_case.h"
#include "tests/oracle/meshes.h"
#include "tests/oracle/pairwise.h"

namespace seqpar {
namespace {

bool RunsInFull() { return std::getenv("SEQPAR_TEST_FULL") != nullptr; }

// Either the case is right, or its mesh is refused because it has more ranks over the heads than there are.
void CheckCase(const AttentionCase& c, int kv_head = -1, int64_t row = 0) {
  const absl::Status status = CheckMesh(StrategyKind::kHybrid, c.mesh, c.problem.heads);
  if (c.mesh.tensor * c.mesh.ulysses > c.problem.heads) {
    EXPECT_FALSE(status.ok()) << c.ToString();
    return;
  }
  ASSERT_TRUE(status.ok()) << status;
  ExpectRight(c, kv_head, row);
}

// Every pair of choices; with SEQPAR_TEST_FULL every mesh, heads, mask, layout, core and dtype.
TEST(AttentionMatrixTest, Matrix) {
  const std::vector<Mesh> meshes = AllMeshes(8);
  const std::vector<int64_t> tokens = {131, 67, 5, 128};
  const std::vector<int> head_dims = {16, 64, 20};
  std::vector<int> sizes = {
      static_cast<int>(meshes.size()), kMatrixMasks, static_cast<int>(MatrixHeads().size()), 3, 2, 2};
  const std::vector<int> small_sizes = {static_cast<int>(tokens.size()), 2,
                                        static_cast<int>(head_dims.size())};
  std::vector<std::vector<int>> cases;
  if (RunsInFull()) {
    cases = AllCases(sizes);
    for (size_t i = 0; i < cases.size(); ++i) {  // the rest in turn
      for (const int size : small_sizes) cases[i].push_back(static_cast<int>(i / 7 % size));
    }
  } else {
    sizes.insert(sizes.end(), small_sizes.begin(), small_sizes.end());
    cases = PairwiseCases(sizes);
  }
  for (const std::vector<int>& c : cases) {
    const int64_t n = tokens[c[6]];
    AttentionCase attention;
    attention.mesh = meshes[c[0]];
    attention.layout = static_cast<LayoutKind>(c[3]);
    attention.core = static_cast<CoreKind>(c[4]);
    attention.dtype = c[5] == 0 ? DType::kF32 : DType::kBF16;
    const auto [heads, kv_heads] = MatrixHeads()[c[2]];
    attention.problem = {1 + c[7], n, heads, kv_heads, head_dims[c[8]], MatrixMask(c[1], n)};
    CheckCase(attention);
    if (HasFatalFailure()) return;
  }
}

struct PublicCase {
  int64_t batch, tokens;
  int heads, kv_heads, head_dim;
  MaskSpec mask;
  Mesh mesh;
  LayoutKind layout = LayoutKind::kContiguous;
};

// docs/formulas.md, "Public cases": a quarter of their length unless SEQPAR_TEST_FULL is set. Lengths of a
// few tokens and of documents stay as they are.
std::vector<PublicCase> PublicCases() {
  const int64_t part = RunsInFull() ? 1 : 4;
  std::vector<PublicCase> cases;
  const auto scaled = [&](int64_t n) { return n < 0 || n < 256 ? n : n / part; };
  const std::vector<MaskSpec> masks = {{MaskKind::kFull},
                                       {MaskKind::kCausal},
                                       {MaskKind::kWindow, scaled(128), 0},
                                       {MaskKind::kWindow, scaled(512), 0},
                                       {MaskKind::kWindow, scaled(512), scaled(512)}};
  const int shapes[][3] = {{12, 12, 128}, {32, 4, 128}, {12, 2, 128}, {64, 8, 64}};
  int turn = 0;
  for (const auto& s : shapes) {
    for (const MaskSpec& mask : masks) {
      for (const int ranks : {2, 4}) {
        // By ring, by Ulysses and by both in turn; on 2 or on 4 ranks in turn, in full on both.
        if (!RunsInFull() && ranks != (turn % 2 == 0 ? 2 : 4)) continue;
        const Mesh choices[] = {{1, 1, ranks, 1}, {1, ranks, 1, 1}, {1, 2, ranks / 2, 1}};
        const Mesh& mesh = choices[(turn + ranks) % 3];
        cases.push_back({2, 4096 / part, s[0], s[1], s[2], mask, mesh, LayoutKind::kZigzag});
      }
      ++turn;
    }
  }
  const auto packed = [](std::vector<int64_t> starts) {
    MaskSpec mask{MaskKind::kCausal};
    for (size_t i = 1; i < starts.size(); ++i) mask.documents.push_back(starts[i] - starts[i - 1]);
    return mask;
  };
  for (const int64_t n : {3816, 3824}) {
    cases.push_back({1, n / part, 5, 5, 128, {MaskKind::kCausal}, {1, 1, 8, 1}, LayoutKind::kZigzag});
  }
  const int64_t p = part;
  cases.push_back({1, 4232 / p, 5, 5, 128, packed({0, 120 / p, 1248 / p, 4232 / p}), {1, 1, 8, 1}});
  cases.push_back({1, 4240 / p, 5, 5, 128, packed({0, 128 / p, 1248 / p, 4240 / p}), {1, 1, 8, 1}});
  cases.push_back({1, 16, 5, 5, 128, packed({0, 7, 14, 16}), {1, 1, 8, 1}});
  for (const int u : {1, 2, 4})
    cases.push_back({1, 1024 / part, 32, 32, 64, {MaskKind::kCausal}, {1, u, 4 / u, 1}});
  cases.push_back({2, 1024 / part, 8, 8, 32, {MaskKind::kCausal}, {1, 8, 1, 1}});
  for (const int inner : {2, 4})
    cases.push_back({2, 4096 / part, 5, 5, 128, {MaskKind::kFull}, {1, 1, 4, inner}});
  cases.push_back({1, 256 * 4 / part, 32, 32, 128, {MaskKind::kCausal}, {1, 1, 4, 2}, LayoutKind::kStriped});
  for (const LayoutKind layout : {LayoutKind::kStriped, LayoutKind::kZigzag}) {
    cases.push_back({1, 31, 8, 4, 16, {MaskKind::kCausal}, {1, 1, 8, 1}, layout});
  }
  for (const int heads : {4, 7, 8})
    cases.push_back({1, 64, heads, heads, 32, {MaskKind::kFull}, {1, 4, 1, 1}});
  return cases;
}

TEST(AttentionMatrixTest, PublicCases) {
  int turn = 0;  // other heads and rows are compared in each case
  for (const PublicCase& p : PublicCases()) {
    AttentionCase c;
    c.mesh = p.mesh;
    c.layout = p.layout;
    c.problem = {p.batch, p.tokens, p.heads, p.kv_heads, p.head_dim, p.mask};
    CheckCase(c, turn % p.kv_heads, turn % p.batch);
    ++turn;
    if (HasFatalFailure()) return;
  }
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
