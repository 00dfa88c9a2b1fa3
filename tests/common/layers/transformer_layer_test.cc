#include "common/layers/transformer_layer.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/common/layers/layer_case.h"
#include "tests/devices/test_devices.h"
#include "tests/oracle/meshes.h"
#include "tests/oracle/pairwise.h"

namespace seqpar {
namespace {

// hidden 40 and intermediate 50: neither is divided by most degrees.
ModelConfig SmallConfig(int heads, int kv_heads) {
  ModelConfig config;
  config.hidden_size = 40;
  config.heads = heads;
  config.kv_heads = kv_heads;
  config.head_dim = 8;
  config.intermediate_size = 50;
  config.layers = 2;
  return config;
}

TEST(TransformerLayerTest, OneRank) {
  LayerCase c;
  c.problem = {SmallConfig(8, 2), 1, 37, {MaskKind::kCausal}};
  ExpectLayersRight(c);
}

enum Factor {
  kMesh,
  kHeads,
  kLayout,
  kCore,
  kDType,
  kMask,
  kTokens,
  kBatch,
  kNorm,
  kMlp,
  kBiases,  // none, qkv, attention out, mlp, all
  kRotary,
  kRecompute,
  kKernel,
  kFactors
};

const std::vector<int64_t> kMatrixTokens = {131, 67, 7, 5, 3, 2, 1};

// By mesh: every pair of choices; with SEQPAR_TEST_FULL every mesh, heads, layout, core and dtype, the rest
// in turn such that its pairs are covered.
std::vector<std::vector<std::vector<int>>> CasesByMesh() {
  const bool full = RunsInFull();
  std::vector<int> others = {/*layouts*/ 3, /*cores*/ 2, /*dtypes*/ 2};
  const std::vector<int> rest = {kMatrixMasks,    static_cast<int>(kMatrixTokens.size()),
                                 /*batch*/ 2,
                                 /*norm*/ 3,
                                 /*mlp*/ 4,
                                 /*biases*/ 5,
                                 /*rotary*/ 2,
                                 /*recompute*/ 4, static_cast<int>(TestKernels().size())};
  if (!full) others.insert(others.end(), rest.begin(), rest.end());
  const std::vector<std::vector<int>> turns = PairwiseCases(rest);
  std::vector<std::vector<std::vector<int>>> by_mesh(AllMeshes(8).size());
  size_t i = 0;
  for (std::vector<int>& c : MatrixCases(others, full)) {
    const std::vector<int>& turn = turns[i++ % turns.size()];
    if (full) c.insert(c.end(), turn.begin(), turn.end());
    by_mesh[c[kMesh]].push_back(std::move(c));
  }
  return by_mesh;
}

LayerCase CaseOf(const std::vector<int>& v) {
  LayerCase c;
  c.mesh = AllMeshes(8)[v[kMesh]];
  const auto [heads, kv_heads] = MatrixHeads()[v[kHeads]];
  c.layout = static_cast<LayoutKind>(v[kLayout]);
  c.core = static_cast<CoreKind>(v[kCore]);
  c.recompute = static_cast<Recompute>(v[kRecompute]);
  ModelConfig config = SmallConfig(heads, kv_heads);
  config.norm = static_cast<NormKind>(v[kNorm]);
  config.mlp = static_cast<MlpKind>(v[kMlp]);
  if (config.mlp == MlpKind::kNone) config.intermediate_size = 0;
  config.qkv_bias = v[kBiases] == 1 || v[kBiases] == 4;
  config.attention_out_bias = v[kBiases] == 2 || v[kBiases] == 4;
  config.mlp_bias = v[kBiases] == 3 || v[kBiases] == 4;
  if (v[kRotary] == 1) config.rope_theta = 10000;
  const int64_t n = kMatrixTokens[v[kTokens]];
  c.problem = {config, 1 + v[kBatch], n, MatrixMask(v[kMask], n),
               v[kDType] == 0 ? DType::kF32 : DType::kBF16};
  return c;
}

class LayerMatrixTest : public testing::TestWithParam<int> {
 protected:
  static void TearDownTestSuite() { count_.Print(); }
  static CaseCount count_;
};
CaseCount LayerMatrixTest::count_("cases of the layer matrix");

TEST_P(LayerMatrixTest, IsRight) {
  static const std::vector<std::vector<std::vector<int>>> cases = CasesByMesh();
  const std::vector<std::string> kernels = TestKernels();
  ASSERT_FALSE(cases[GetParam()].empty());
  for (const std::vector<int>& v : cases[GetParam()]) {
    ASSERT_EQ(v.size(), static_cast<size_t>(kFactors));
    const LayerCase c = CaseOf(v);
    RunRanksOptions options;
    options.kernel = kernels[v[kKernel]];
    const int runs = ExpectLayersRight(c, options);
    if (HasFatalFailure()) return;
    count_.Add(absl::StrCat(options.kernel, " ", JobName(c.problem.dtype)), runs);
  }
}

INSTANTIATE_TEST_SUITE_P(Meshes, LayerMatrixTest, testing::Range(0, static_cast<int>(AllMeshes(8).size())),
                         [](const auto& info) { return MeshTestName(AllMeshes(8)[info.param]); });

}  // namespace
}  // namespace seqpar
