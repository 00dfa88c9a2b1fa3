// Every composition of tensor, Ulysses and ring ranks against the float64 oracle, forward and all gradients.
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/common/attention/attention_case.h"
#include "tests/devices/test_devices.h"
#include "tests/oracle/meshes.h"

namespace seqpar {
namespace {

enum Factor { kMesh, kHeads, kMask, kDType, kLayout, kCore, kKernel, kTokens, kBatch, kHeadDim, kFactors };

const std::vector<int64_t> kMatrixTokens = {131, 67, 5, 128};
const std::vector<int> kMatrixHeadDims = {16, 64, 20, 128};

// By mesh: every pair of choices; with SEQPAR_TEST_FULL every mesh, heads, mask, layout, core, dtype and
// kernel, the rest by chance: the same for all layouts, cores and kernels, which so share the oracle's
// answer.
std::vector<std::vector<std::vector<int>>> CasesByMesh() {
  const bool full = RunsInFull();
  std::vector<int> others = {kMatrixMasks, /*dtypes*/ 2, /*layouts*/ 3, /*cores*/ 2,
                             static_cast<int>(TestKernels().size())};
  const std::vector<int> rest = {static_cast<int>(kMatrixTokens.size()), /*batch*/ 2,
                                 static_cast<int>(kMatrixHeadDims.size())};
  if (!full) others.insert(others.end(), rest.begin(), rest.end());
  std::vector<std::vector<std::vector<int>>> by_mesh(AllMeshes(8).size());
  std::minstd_rand random(1);
  std::vector<int> problem, drawn;
  for (std::vector<int>& c : MatrixCases(others, full)) {
    if (full) {
      const std::vector<int> of_case(c.begin(), c.begin() + kLayout);
      if (of_case != problem) {
        problem = of_case;
        drawn.clear();
        for (const int size : rest) drawn.push_back(static_cast<int>(random() % size));
      }
      c.insert(c.end(), drawn.begin(), drawn.end());
    }
    by_mesh[c[kMesh]].push_back(std::move(c));
  }
  return by_mesh;
}

class AttentionMatrixTest : public testing::TestWithParam<int> {
 protected:
  static void TearDownTestSuite() { count_.Print(); }
  static CaseCount count_;
};
CaseCount AttentionMatrixTest::count_("cases of the attention matrix");

TEST_P(AttentionMatrixTest, IsRight) {
  static const std::vector<std::vector<std::vector<int>>> cases = CasesByMesh();
  const std::vector<std::string> kernels = TestKernels();
  ASSERT_FALSE(cases[GetParam()].empty());
  for (const std::vector<int>& c : cases[GetParam()]) {
    ASSERT_EQ(c.size(), static_cast<size_t>(kFactors));
    const int64_t n = kMatrixTokens[c[kTokens]];
    const auto [heads, kv_heads] = MatrixHeads()[c[kHeads]];
    AttentionCase attention;
    attention.mesh = AllMeshes(8)[GetParam()];
    attention.layout = static_cast<LayoutKind>(c[kLayout]);
    attention.core = static_cast<CoreKind>(c[kCore]);
    attention.dtype = c[kDType] == 0 ? DType::kF32 : DType::kBF16;
    attention.problem = {1 + c[kBatch],          n, heads, kv_heads, kMatrixHeadDims[c[kHeadDim]],
                         MatrixMask(c[kMask], n)};
    RunRanksOptions options;
    options.kernel = kernels[c[kKernel]];
    const int runs = ExpectRight(attention, -1, 0, options);
    if (HasFatalFailure()) return;
    count_.Add(absl::StrCat(options.kernel, " ", JobName(attention.dtype)), runs);
  }
}

INSTANTIATE_TEST_SUITE_P(Meshes, AttentionMatrixTest,
                         testing::Range(0, static_cast<int>(AllMeshes(8).size())),
                         [](const auto& info) { return MeshTestName(AllMeshes(8)[info.param]); });

}  // namespace
}  // namespace seqpar
