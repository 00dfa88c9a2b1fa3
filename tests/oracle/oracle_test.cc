// The oracle itself: its gradients against differences of its forward, its error rule against known errors.
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/job/tensors.h"
#include "common/tensor/seeded.h"
#include "gtest/gtest.h"
#include "tests/oracle/error_rule.h"
#include "tests/oracle/layer_oracle.h"
#include "tests/oracle/meshes.h"
#include "tests/oracle/pairwise.h"
#include "tests/oracle/run_ranks.h"

namespace seqpar {
namespace {

std::vector<double> Seeded(const std::string& name, int64_t n) {
  std::vector<float> values(n);
  SeededUniform(5, name, 0.5, 0, n, values.data());
  return {values.begin(), values.end()};
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

NamedValues<double> SeededWeights(const ModelConfig& config) {
  NamedValues<double> weights;
  for (const WeightInfo& info : LayerWeights(config, 0)) {
    int64_t n = 1;
    for (const int64_t size : info.shape) n *= size;
    weights[info.name.substr(std::string("model.layers.0.").size())] = Seeded(info.name, n);
  }
  return weights;
}

// Every gradient of the loss sum(y * dy), by the slope along a random direction.
TEST(LayerOracleTest, GradientsAreSlopes) {
  for (const NormKind norm : {NormKind::kNone, NormKind::kLayerNorm, NormKind::kRmsNorm}) {
    for (const MlpKind mlp : {MlpKind::kNone, MlpKind::kGelu, MlpKind::kGeluTanh, MlpKind::kSwiglu}) {
      LayerProblem problem;
      problem.config = {12,    4,    2,    6,   mlp == MlpKind::kNone ? 0 : 10, 1, norm, 1e-5, mlp,
                        100.0, true, true, true};
      problem.batch = 2;
      problem.tokens = 5;
      problem.mask = {MaskKind::kWindow, 2, 1};
      const NamedValues<double> weights = SeededWeights(problem.config);
      const std::vector<double> x = Seeded("x", problem.rows() * 12), dy = Seeded("dy", problem.rows() * 12);
      const LayerTrace<double> trace = LayerForwardOracle<double>(problem, weights, x);
      const LayerGrads<double> grads = LayerBackwardOracle<double>(problem, weights, trace, dy);
      const auto check = [&](const std::string& name, const std::vector<double>& gradient, size_t n,
                             auto loss) {
        constexpr double kStep = 1e-5;
        const std::vector<double> direction = Seeded("direction " + name, static_cast<int64_t>(n));
        const double slope = (loss(direction, kStep) - loss(direction, -kStep)) / (2 * kStep);
        EXPECT_NEAR(Dot(gradient, direction), slope, 1e-6 * (1 + std::abs(slope))) << name;
      };
      const auto moved = [](std::vector<double> values, const std::vector<double>& direction, double step) {
        for (size_t i = 0; i < values.size(); ++i) values[i] += step * direction[i];
        return values;
      };
      check("x", grads.dx, x.size(), [&](const std::vector<double>& direction, double step) {
        return Dot(dy, LayerForwardOracle<double>(problem, weights, moved(x, direction, step)).y);
      });
      for (const auto& entry : weights) {
        const std::string& name = entry.first;
        check(name, grads.weights.at(name), entry.second.size(),
              [&](const std::vector<double>& direction, double step) {
                NamedValues<double> other = weights;
                other[name] = moved(other[name], direction, step);
                return Dot(dy, LayerForwardOracle<double>(problem, other, x).y);
              });
      }
    }
  }
}

TEST(AttentionOracleTest, OneVisibleKeyGivesItsValue) {
  AttentionProblem problem{1, 3, 2, 1, 2, {MaskKind::kWindow, 0, 0}};
  const std::vector<double> q = Seeded("q", 12), k = Seeded("k", 6), v = Seeded("v", 6);
  const auto result = AttentionForwardOracle<double>(problem, q, k, v, DType::kF32);
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t c = 0; c < 4; ++c) EXPECT_DOUBLE_EQ(result.out[row * 4 + c], v[row * 2 + c % 2]);
  }
}

TEST(AttentionOracleTest, SeesByTheWordsOfTheDefinition) {
  EXPECT_TRUE(Sees({MaskKind::kCausal}, 4, 4));
  EXPECT_FALSE(Sees({MaskKind::kCausal}, 4, 5));
  const MaskSpec window{MaskKind::kWindow, 2, 1};
  EXPECT_TRUE(Sees(window, 4, 2) && Sees(window, 4, 5));
  EXPECT_FALSE(Sees(window, 4, 1) || Sees(window, 4, 6));
  const MaskSpec packed{MaskKind::kFull, -1, -1, {3, 2}};
  EXPECT_TRUE(Sees(packed, 0, 2) && Sees(packed, 4, 3));
  EXPECT_FALSE(Sees(packed, 2, 3) || Sees(packed, 3, 2));
}

TEST(ErrorRuleTest, TellsRightFromWrong) {
  const std::vector<double> reference = {1, -2, 4};
  const std::vector<float> plain = {1, -2, 4.001f};
  EXPECT_TRUE(WithinRule({1, -2, 4.0015}, plain, reference, DType::kBF16));
  EXPECT_FALSE(WithinRule({1, -2, 4.0025}, plain, reference, DType::kBF16));
  EXPECT_TRUE(WithinRule({1, -2, 4.0035}, plain, reference, DType::kF32));
  EXPECT_FALSE(WithinRule({1, -2, 4.0045}, plain, reference, DType::kF32));
  EXPECT_FALSE(WithinRule({1, -2, NAN}, plain, reference, DType::kF32));
  EXPECT_FALSE(WithinRule({1, -2}, plain, reference, DType::kF32));
}

// One wrong element of ten thousand hides in the norm.
TEST(ErrorRuleTest, TheWorstElementCountsToo) {
  const std::vector<double> reference(10'000, 1.0);
  const std::vector<float> plain(10'000, 1.0001f);
  std::vector<double> x = reference;
  x[5'000] += 3.5e-4;
  EXPECT_TRUE(WithinRule(x, plain, reference, DType::kF32));
  x[5'000] += 1e-4;
  EXPECT_FALSE(WithinRule(x, plain, reference, DType::kF32));
}

// A little wrong everywhere is nowhere the worst.
TEST(ErrorRuleTest, TheNormCountsToo) {
  const std::vector<double> reference(10'000, 1.0);
  std::vector<float> plain(10'000, 1.0f);
  plain[5'000] = 1.001f;
  EXPECT_TRUE(WithinRule(std::vector<double>(10'000, 1 + 3e-5), plain, reference, DType::kF32));
  EXPECT_FALSE(WithinRule(std::vector<double>(10'000, 1 + 6e-5), plain, reference, DType::kF32));
}

// Where several runs are pooled, one that is far off counts.
TEST(ErrorRuleTest, RunsArePooledAsRootMeanSquares) {
  const std::vector<double> reference = {1, 1};
  const std::vector<float> plain = {1.001f, 1.001f};
  TensorErrors errors;
  errors.Add({1.005, 1.005}, plain, reference);
  EXPECT_FALSE(errors.WithinRule(DType::kF32));
  for (int run = 0; run < 3; ++run) errors.Add({1.001, 1.001}, plain, reference);
  EXPECT_TRUE(errors.WithinRule(DType::kF32));
  errors.Add({1.02, 1.02}, plain, reference);
  EXPECT_FALSE(errors.WithinRule(DType::kF32));
}

TEST(ErrorRuleTest, MeasuresAZeroGradientByItsSibling) {
  const ErrorScale sibling = ScaleOf({1000, 1000});
  EXPECT_TRUE(WithinRule({1e-4, 0}, {0, 0}, {0, 1e-13}, DType::kF32, sibling));
  EXPECT_FALSE(WithinRule({1e-2, 0}, {0, 0}, {0, 1e-13}, DType::kF32, sibling));
}

TEST(PairwiseTest, CoversEveryPair) {
  const std::vector<int> sizes = {7, 3, 2, 4};
  const std::vector<std::vector<int>> cases = PairwiseCases(sizes);
  EXPECT_LT(cases.size(), 40u);  // of 168
  for (size_t f = 0; f < sizes.size(); ++f) {
    for (size_t g = f + 1; g < sizes.size(); ++g) {
      for (int a = 0; a < sizes[f]; ++a) {
        for (int b = 0; b < sizes[g]; ++b) {
          bool found = false;
          for (const std::vector<int>& c : cases) found = found || (c[f] == a && c[g] == b);
          EXPECT_TRUE(found) << f << "=" << a << " " << g << "=" << b;
        }
      }
    }
  }
  EXPECT_EQ(AllCases(sizes).size(), 168u);
}

TEST(PairwiseTest, CoversEveryPairThatIsNotExcluded) {
  const std::vector<int> sizes = {7, 3, 2, 4};
  const auto excluded = [](size_t f, int a, size_t g, int b) { return f == 0 && g == 1 && a + b > 6; };
  const std::vector<std::vector<int>> cases = PairwiseCases(sizes, excluded);
  for (const std::vector<int>& c : cases) EXPECT_FALSE(excluded(0, c[0], 1, c[1]));
  for (size_t f = 0; f < sizes.size(); ++f) {
    for (size_t g = f + 1; g < sizes.size(); ++g) {
      for (int a = 0; a < sizes[f]; ++a) {
        for (int b = 0; b < sizes[g]; ++b) {
          bool found = false;
          for (const std::vector<int>& c : cases) found = found || (c[f] == a && c[g] == b);
          EXPECT_EQ(found, !excluded(f, a, g, b)) << f << "=" << a << " " << g << "=" << b;
        }
      }
    }
  }
  EXPECT_EQ(AllCases(sizes, excluded).size(), 168u - 3 * 8);
}

// No case of the matrix is one that is refused, and every pair is in a case whose mesh has a ring.
TEST(MatrixTest, PairsAreCoveredWhereTheyMeanSomething) {
  const std::vector<int> others = {kMatrixMasks, 3};
  const std::vector<Mesh> meshes = AllMeshes(8);
  std::set<std::vector<int>> masks_and_layouts, meshes_and_masks, heads_and_meshes;
  for (const std::vector<int>& c : MatrixCases(others, false)) {
    const Mesh& mesh = meshes[c[0]];
    EXPECT_LE(mesh.tensor * mesh.ulysses, MatrixHeads()[c[1]].first);
    if (mesh.ring > 1) masks_and_layouts.insert({c[2], c[3]});
    meshes_and_masks.insert({c[0], c[2]});
    heads_and_meshes.insert({c[1], c[0]});
  }
  EXPECT_EQ(masks_and_layouts.size(), kMatrixMasks * 3u);
  EXPECT_EQ(meshes_and_masks.size(), meshes.size() * kMatrixMasks);
  EXPECT_EQ(heads_and_meshes.size(), meshes.size() * 4 - 14);  // 14 are refused
}

TEST(RunRanksTest, TheFirstErrorEndsEveryRank) {
  const absl::Status status = RunRanks(3, [](TestRank& self) -> absl::Status {
    if (self.rank == 1) return absl::DataLossError("broken");
    self.world->Barrier(*self.comm);  // rank 1 never comes
    return self.comm->Synchronize();
  });
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("broken"), absl::string_view::npos) << status;
}

}  // namespace
}  // namespace seqpar
