#include "common/layers/transformer_layer.h"

#include <cstdlib>
#include <vector>

#include "gtest/gtest.h"
#include "tests/common/layers/layer_case.h"
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

// Every pair of choices; with SEQPAR_TEST_FULL every mesh, heads, layout, core and dtype, the rest in turn.
TEST(TransformerLayerTest, Matrix) {
  const std::vector<Mesh> meshes = AllMeshes(8);
  const std::vector<int64_t> tokens = {131, 67, 7};
  std::vector<int> sizes = {static_cast<int>(meshes.size()), static_cast<int>(MatrixHeads().size()),
                            /*layout*/ 3,
                            /*core*/ 2, /*dtype*/ 2};
  // Biases: none, qkv, attention out, mlp, all.
  const std::vector<int> others = {kMatrixMasks, static_cast<int>(tokens.size()),
                                   /*batch*/ 2,  /*norm*/ 3,
                                   /*mlp*/ 4,    /*biases*/ 5,
                                   /*rotary*/ 2, /*recompute*/ 3};
  std::vector<std::vector<int>> cases;
  if (std::getenv("SEQPAR_TEST_FULL") != nullptr) {
    cases = AllCases(sizes);
    const std::vector<std::vector<int>> turns = PairwiseCases(others);
    for (size_t i = 0; i < cases.size(); ++i) {
      const std::vector<int>& turn = turns[i % turns.size()];
      cases[i].insert(cases[i].end(), turn.begin(), turn.end());
    }
  } else {
    sizes.insert(sizes.end(), others.begin(), others.end());
    cases = PairwiseCases(sizes);
  }
  for (const std::vector<int>& v : cases) {
    LayerCase c;
    c.mesh = meshes[v[0]];
    const auto [heads, kv_heads] = MatrixHeads()[v[1]];
    if (c.mesh.tensor * c.mesh.ulysses > heads) continue;  // refused: see strategies_test
    c.layout = static_cast<LayoutKind>(v[2]);
    c.core = static_cast<CoreKind>(v[3]);
    c.recompute = static_cast<Recompute>(v[12]);
    ModelConfig config = SmallConfig(heads, kv_heads);
    config.norm = static_cast<NormKind>(v[8]);
    config.mlp = static_cast<MlpKind>(v[9]);
    if (config.mlp == MlpKind::kNone) config.intermediate_size = 0;
    config.qkv_bias = v[10] == 1 || v[10] == 4;
    config.attention_out_bias = v[10] == 2 || v[10] == 4;
    config.mlp_bias = v[10] == 3 || v[10] == 4;
    if (v[11] == 1) config.rope_theta = 10000;
    const int64_t n = tokens[v[6]];
    c.problem = {config, 1 + v[7], n, MatrixMask(v[5], n), v[4] == 0 ? DType::kF32 : DType::kBF16};
    ExpectLayersRight(c);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace seqpar
