#include "common/attention/ulysses_attention.h"

#include <string>

#include "gtest/gtest.h"
#include "tests/common/attention/attention_case.h"
#include "tests/devices/test_devices.h"

namespace seqpar {
namespace {

AttentionCase Case(const Mesh& mesh, int heads, int kv_heads, DType dtype = DType::kF32) {
  AttentionCase c;
  c.mesh = mesh;
  c.dtype = dtype;
  c.problem = {2, 61, heads, kv_heads, 16, {MaskKind::kCausal}};
  return c;
}

AttentionResults Results(const AttentionCase& c, const std::string& kernel = "auto") {
  RunRanksOptions options;
  options.kernel = kernel;
  absl::StatusOr<AttentionResults> results =
      RunAttentionCase(c, MakeInputs(c.problem, c.dtype), true, options);
  EXPECT_TRUE(results.ok()) << c.ToString() << ": " << results.status();
  return results.ok() ? *std::move(results) : AttentionResults();
}

// Heads are attended one by one, so that where a head is computed changes no bit of it.
TEST(UlyssesAttentionTest, SameBitsAsOneRank) {
  for (const std::string& kernel : TestKernels()) {
    for (const auto& [heads, kv_heads] : {std::pair(8, 8), {8, 2}, {5, 5}, {7, 1}, {12, 3}}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const AttentionResults one = Results(Case({1, 1, 1, 1}, heads, kv_heads, dtype), kernel);
        for (const Mesh& mesh : {Mesh{1, 2, 1, 1}, {1, 4, 1, 1}, {1, 5, 1, 1}, {4, 1, 1, 1}, {2, 2, 1, 1}}) {
          const AttentionCase c = Case(mesh, heads, kv_heads, dtype);
          SCOPED_TRACE(c.ToString() + " " + kernel);
          const AttentionResults many = Results(c, kernel);
          EXPECT_TRUE(many.out == one.out);
          EXPECT_TRUE(many.lse == one.lse);
          EXPECT_TRUE(many.dq == one.dq);
          if (heads == kv_heads) {
            EXPECT_TRUE(many.dk == one.dk && many.dv == one.dv);
          }
        }
      }
    }
  }
}

// docs/formulas.md, "Bytes that leave a rank": exact on every rank, from the real shares.
TEST(UlyssesAttentionTest, SendsWhatTheFormulaSays) {
  for (const auto& [heads, kv_heads] : {std::pair(8, 8), {12, 3}, {7, 1}}) {
    for (const Mesh& mesh : {Mesh{1, 4, 1, 1}, {2, 3, 1, 1}, {1, 2, 3, 3}}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const AttentionCase c = Case(mesh, heads, kv_heads, dtype);
        const AttentionResults results = Results(c);
        const TokenLayout tokens(mesh, c.layout, c.problem.tokens);
        const HeadLayout layout(mesh, heads, kv_heads);
        const int64_t unit = c.problem.batch * c.problem.head_dim * SizeOf(dtype);
        for (int rank = 0; rank < mesh.size(); ++rank) {
          const MeshCoord at = mesh.CoordOf(rank);
          const HeadRange& mine = layout.Of(at.tensor, at.ulysses);
          const int64_t own = tokens.OfTensorGroup(at.ring, at.ulysses).size();
          int64_t bytes = 0;
          for (int u = 0; u < mesh.ulysses; ++u) {
            if (u == at.ulysses) continue;
            const HeadRange& theirs = layout.Of(at.tensor, u);
            bytes += unit * own * (theirs.q_heads() + 2 * theirs.kv_heads());
            bytes += unit * tokens.OfTensorGroup(at.ring, u).size() * mine.q_heads();
          }
          int64_t mirrored = 0;
          for (int u = 0; u < mesh.ulysses; ++u) {
            if (u == at.ulysses) continue;
            mirrored += unit * own * layout.Of(at.tensor, u).q_heads();
            mirrored +=
                unit * tokens.OfTensorGroup(at.ring, u).size() * (mine.q_heads() + 2 * mine.kv_heads());
          }
          const auto& sent = results.traffic[rank];
          const Traffic forward = sent.at({Operation::kUlysses, Pass::kForward});
          const Traffic backward = sent.at({Operation::kUlysses, Pass::kBackward});
          EXPECT_EQ(forward.bytes, bytes) << c.ToString() << " rank " << rank;
          EXPECT_EQ(backward.bytes, mirrored) << c.ToString() << " rank " << rank;
          EXPECT_EQ(forward.messages, 2 * (mesh.ulysses - 1)) << c.ToString();
          EXPECT_EQ(backward.messages, 2 * (mesh.ulysses - 1)) << c.ToString();
        }
      }
    }
  }
}

}  // namespace
}  // namespace seqpar
