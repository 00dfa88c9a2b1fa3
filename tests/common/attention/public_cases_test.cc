// The cases of docs/formulas.md, "Public cases": what the best-known implementations test themselves with.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/common/attention/attention_case.h"
#include "tests/oracle/meshes.h"
#include "tests/support/time.h"

namespace seqpar {
namespace {

struct PublicCase {
  int64_t batch, tokens;
  int heads, kv_heads, head_dim;
  MaskSpec mask;
  Mesh mesh;
  LayoutKind layout = LayoutKind::kContiguous;
  CoreKind core = CoreKind::kRing;
  int problem = 0;  // cases of one number differ only in how they are sharded
};

Mesh Ring(int ranks) { return {1, 1, ranks, ranks}; }
Mesh Ulysses(int ranks) { return {1, ranks, 1, 1}; }
Mesh Hybrid(int ulysses, int ring) { return {1, ulysses, ring, ring}; }

// Lengths at a quarter unless SEQPAR_TEST_FULL is set, windows and documents too; those of a few tokens stay.
// In a sanitizer's build shorter by its time factor once more: what it looks for is at the edges of blocks,
// not in their number.
int64_t Scaled(int64_t n) { return n < 100 || RunsInFull() ? n : n / (4 * TestTimeFactor()); }

MaskSpec Window(int64_t left, int64_t right) { return {MaskKind::kWindow, Scaled(left), Scaled(right)}; }

// Causal documents between the given positions.
MaskSpec Packed(const std::vector<int64_t>& starts) {
  MaskSpec mask{MaskKind::kCausal};
  for (size_t i = 1; i < starts.size(); ++i)
    mask.documents.push_back(Scaled(starts[i]) - Scaled(starts[i - 1]));
  return mask;
}

// 2, 4096, 12/12/128 · 32/4/128 · 12/2/128 · 64/8/64; none, causal, windows (128,0) (512,0) (512,512); P =
// 2, 4. By ring, by Ulysses, by gather and, on four ranks, by both: one in turn, and in full each.
void AppendLongSequences(std::vector<PublicCase>* cases) {
  const int shapes[][3] = {{12, 12, 128}, {32, 4, 128}, {12, 2, 128}, {64, 8, 64}};
  const std::vector<MaskSpec> masks = {
      {MaskKind::kFull}, {MaskKind::kCausal}, Window(128, 0), Window(512, 0), Window(512, 512)};
  int turn = 0;
  for (const auto& s : shapes) {
    for (const MaskSpec& mask : masks) {
      for (const int ranks : {2, 4}) {
        const PublicCase ring{2, Scaled(4096), s[0], s[1], s[2], mask, Ring(ranks), LayoutKind::kZigzag};
        PublicCase ulysses = ring, gather = ring, hybrid = ring;
        ulysses.mesh = Ulysses(ranks);
        gather.core = CoreKind::kGather;
        hybrid.mesh = Hybrid(2, ranks / 2);
        std::vector<PublicCase> ways = {ring, ulysses, gather};
        if (ranks == 4) ways.push_back(hybrid);
        if (RunsInFull()) {
          cases->insert(cases->end(), ways.begin(), ways.end());
        } else {
          cases->push_back(ways[turn++ % ways.size()]);
        }
      }
    }
  }
}

// 1, 3816 and 3824, 5/5/128, causal, P = 8; packed [0,120,1248,4232], [0,128,1248,4240], [0,7,14,16].
// Five heads over four ranks are uneven.
void AppendFiveHeads(std::vector<PublicCase>* cases) {
  const auto add = [&](int64_t n, const MaskSpec& mask) {
    cases->push_back({1, Scaled(n), 5, 5, 128, mask, Ring(8), LayoutKind::kZigzag});
    cases->push_back({1, Scaled(n), 5, 5, 128, mask, Hybrid(4, 2)});
    cases->push_back({1, Scaled(n), 5, 5, 128, mask, Ring(8), LayoutKind::kContiguous, CoreKind::kGather});
  };
  for (const int64_t n : {3816, 3824}) add(n, {MaskKind::kCausal});
  add(4232, Packed({0, 120, 1248, 4232}));
  add(4240, Packed({0, 128, 1248, 4240}));
  add(16, Packed({0, 7, 14, 16}));
}

// 2, 4096, 5/5/128, inner ring sizes; 1, 256 P, 32/32/128, causal x double ring x striped.
void AppendDoubleRings(std::vector<PublicCase>* cases) {
  for (const int ranks : {4, 8}) {
    for (const int inner : {1, 2, 4, 8}) {
      if (inner > ranks) continue;
      cases->push_back({2, Scaled(4096), 5, 5, 128, {MaskKind::kFull}, {1, 1, ranks, inner}});
      if (inner == 1 || inner == ranks) continue;
      cases->push_back({1,
                        Scaled(256 * ranks),
                        32,
                        32,
                        128,
                        {MaskKind::kCausal},
                        {1, 1, ranks, inner},
                        LayoutKind::kStriped});
    }
  }
}

// 1, 1024, 32/32/64, U in {1,2,4} of P = 4; 2, 1024, 8/8/32, P = 8; 1, 31, 8/4/16, causal x {striped,
// zigzag}, P = 8 (nothing divides); 4, 7 and 8 heads on U = 4 (3 heads are refused: strategies_test).
void AppendShortSequences(std::vector<PublicCase>* cases) {
  const MaskSpec causal{MaskKind::kCausal};
  for (const int u : {1, 2, 4}) cases->push_back({1, Scaled(1024), 32, 32, 64, causal, Hybrid(u, 4 / u)});
  for (const Mesh& mesh : {Ulysses(8), Ring(8), Hybrid(4, 2)})
    cases->push_back({2, Scaled(1024), 8, 8, 32, causal, mesh});
  for (const LayoutKind layout : {LayoutKind::kStriped, LayoutKind::kZigzag}) {
    for (const Mesh& mesh : {Ring(8), Hybrid(2, 4)})
      cases->push_back({1, 31, 8, 4, 16, causal, mesh, layout});
  }
  for (const int heads : {4, 7, 8}) {
    for (const MaskSpec& mask : {MaskSpec{MaskKind::kFull}, causal})
      cases->push_back({1, 64, heads, heads, 32, mask, Ulysses(4)});
  }
}

// P in {1..8}, the odd ones included; heads (8,8), (8,2); Dh 64, 128. No length is given: one that none
// divides.
void AppendEveryRankCount(std::vector<PublicCase>* cases) {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (const int kv_heads : {8, 2}) {
      for (const int dim : {64, 128}) {
        for (const Mesh& mesh : {Ring(ranks), Ulysses(ranks)}) {
          cases->push_back(
              {1, Scaled(523), 8, kv_heads, dim, {MaskKind::kCausal}, mesh, LayoutKind::kZigzag});
          if (ranks == 1) break;
        }
      }
    }
  }
}

std::string MaskName(const MaskSpec& mask) {
  std::string name = mask.kind == MaskKind::kFull ? "full" : "causal";
  if (mask.kind == MaskKind::kWindow) name = absl::StrCat("window", mask.left, "_", mask.right);
  return mask.documents.empty() ? name : absl::StrCat(name, "_packed");
}

std::string ProblemName(const PublicCase& p) {
  return absl::StrCat("b", p.batch, "_n", p.tokens, "_h", p.heads, "_", p.kv_heads, "_", p.head_dim, "_",
                      MaskName(p.mask));
}

std::string NameOf(const PublicCase& p) {
  std::string name = absl::StrCat(ProblemName(p), "_", MeshTestName(p.mesh));
  if (p.mesh.ring > 1) absl::StrAppend(&name, "_", LayoutName(p.layout), "_", CoreName(p.core));
  return name;
}

std::vector<PublicCase> PublicCases() {
  std::vector<PublicCase> cases;
  AppendLongSequences(&cases);
  AppendFiveHeads(&cases);
  AppendDoubleRings(&cases);
  AppendShortSequences(&cases);
  AppendEveryRankCount(&cases);
  for (size_t i = 1; i < cases.size(); ++i) {
    cases[i].problem = cases[i - 1].problem + (ProblemName(cases[i]) != ProblemName(cases[i - 1]));
  }
  return cases;
}

class PublicCasesTest : public testing::TestWithParam<int> {
 protected:
  static void TearDownTestSuite() { count_.Print(); }
  static CaseCount count_;
};
CaseCount PublicCasesTest::count_("public cases");

TEST_P(PublicCasesTest, IsRight) {
  const PublicCase p = PublicCases()[GetParam()];
  AttentionCase c;
  c.mesh = p.mesh;
  c.layout = p.layout;
  c.core = p.core;
  c.dtype = p.problem % 3 == 2 ? DType::kBF16 : DType::kF32;
  c.problem = {p.batch, p.tokens, p.heads, p.kv_heads, p.head_dim, p.mask};
  // Other heads and rows are compared in each problem.
  const int runs = ExpectRight(c, p.problem % p.kv_heads, p.problem % p.batch);
  count_.Add(JobName(c.dtype), runs);
}

INSTANTIATE_TEST_SUITE_P(Cases, PublicCasesTest, testing::Range(0, static_cast<int>(PublicCases().size())),
                         [](const auto& info) { return NameOf(PublicCases()[info.param]); });

}  // namespace
}  // namespace seqpar
