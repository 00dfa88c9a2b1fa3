#include "common/layers/weight_table.h"

#include <map>
#include <set>
#include <string>

#include "common/job/tensors.h"
#include "gtest/gtest.h"
#include "tests/oracle/meshes.h"

namespace seqpar {
namespace {

ModelConfig Config(int heads, int kv_heads) {
  return {24, heads, kv_heads, 4, 50, 1, NormKind::kLayerNorm, 1e-5, MlpKind::kSwiglu, {}, true, true, true};
}

std::vector<WeightTable> Tables(const ModelConfig& config, const Mesh& mesh) {
  std::vector<WeightTable> tables;
  const HeadLayout heads(mesh, config.heads, config.kv_heads);
  for (int rank = 0; rank < mesh.size(); ++rank) tables.emplace_back(config, mesh, heads, rank);
  return tables;
}

TEST(WeightTableTest, HasTheNamesAndShapesOfTheFile) {
  for (const MlpKind mlp : {MlpKind::kNone, MlpKind::kGelu, MlpKind::kSwiglu}) {
    for (const NormKind norm : {NormKind::kNone, NormKind::kLayerNorm, NormKind::kRmsNorm}) {
      for (const bool biases : {false, true}) {
        ModelConfig config = Config(8, 2);
        config.mlp = mlp;
        config.norm = norm;
        config.qkv_bias = config.attention_out_bias = config.mlp_bias = biases;
        const std::vector<WeightInfo> want = LayerWeights(config, 3);
        const WeightTable table = Tables(config, {})[0];
        ASSERT_EQ(table.slices().size(), want.size());
        for (size_t i = 0; i < want.size(); ++i) {
          EXPECT_EQ("model.layers.3." + table.slices()[i].suffix, want[i].name);
          EXPECT_EQ(table.slices()[i].shape, want[i].shape) << want[i].name;
        }
      }
    }
  }
}

TEST(WeightTableTest, EveryGradientElementIsWrittenOnce) {
  for (const auto& [heads, kv_heads] : MatrixHeads()) {
    for (const Mesh& mesh : AllMeshes(8)) {
      if (mesh.tensor * mesh.ulysses > heads) continue;
      std::map<std::string, std::map<std::pair<int64_t, int64_t>, int>> written;
      std::map<std::string, int64_t> elements;
      for (const WeightTable& table : Tables(Config(heads, kv_heads), mesh)) {
        for (const WeightSlice& slice : table.slices()) {
          elements[slice.suffix] = slice.shape[0] * (slice.vector() ? 1 : slice.shape[1]);
          EXPECT_GE(slice.written_rows.size(), 0);
          for (int64_t row = slice.written_rows.begin; row < slice.written_rows.end; ++row) {
            EXPECT_TRUE(row >= slice.rows.begin && row < slice.rows.end) << slice.suffix;
            for (int64_t col = slice.cols.begin; col < slice.cols.end; ++col)
              ++written[slice.suffix][{row, col}];
          }
        }
      }
      for (const auto& [suffix, count] : elements) {
        EXPECT_EQ(static_cast<int64_t>(written[suffix].size()), count) << suffix << " " << mesh.ToString();
        for (const auto& [place, times] : written[suffix]) ASSERT_EQ(times, 1) << suffix;
      }
    }
  }
}

TEST(WeightTableTest, SlicesLieApartAndAreReducedOnce) {
  for (const auto& [heads, kv_heads] : MatrixHeads()) {
    for (const WeightTable& table : Tables(Config(heads, kv_heads), {4, 1, 2, 1})) {
      int64_t end = 0;
      for (const WeightTable::Reduction& reduction : table.reductions()) {
        EXPECT_EQ(reduction.begin, end);
        end += reduction.count;
      }
      EXPECT_EQ(end, table.elements());
      std::set<int64_t> offsets;
      int64_t elements = 0;
      for (const WeightSlice& slice : table.slices()) {
        EXPECT_TRUE(offsets.insert(table.OffsetOf(slice.id)).second) << slice.suffix;
        elements += slice.rows.size() * slice.cols.size();
      }
      EXPECT_EQ(elements, table.elements());
    }
  }
}

TEST(WeightTableTest, TwelveHeadsOfThreeGroupsOverFourTensorRanks) {
  const std::vector<WeightTable> tables = Tables(Config(12, 3), {4, 1, 1, 1});
  const IndexRange want[] = {{0, 4}, {0, 8}, {4, 12}, {8, 12}};      // {0} {0,1} {1,2} {2}, four rows a head
  const IndexRange written[] = {{0, 4}, {4, 8}, {8, 12}, {12, 12}};  // by the first holder
  for (int t = 0; t < 4; ++t) {
    EXPECT_EQ(tables[t].Find(WeightId::kK)->rows, want[t]) << t;
    EXPECT_EQ(tables[t].Find(WeightId::kV)->written_rows, written[t]) << t;
  }
  EXPECT_EQ(tables[0].intermediate().size(), 13);  // 50 over 4
  EXPECT_EQ(tables[2].intermediate().size(), 12);
}

}  // namespace
}  // namespace seqpar
