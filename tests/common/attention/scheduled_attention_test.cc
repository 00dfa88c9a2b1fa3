#include "common/attention/scheduled_attention.h"

#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/common/attention/attention_case.h"
#include "tests/devices/test_devices.h"
#include "tests/oracle/meshes.h"

namespace seqpar {
namespace {

AttentionCase Case(const Mesh& mesh, CoreKind core, LayoutKind layout, const MaskSpec& mask, int64_t tokens,
                   DType dtype = DType::kF32) {
  AttentionCase c;
  c.mesh = mesh;
  c.core = core;
  c.layout = layout;
  c.dtype = dtype;
  c.problem = {2, tokens, 4, 2, 16, mask};
  return c;
}

AttentionResults Results(const AttentionCase& c, const RunRanksOptions& options = {}) {
  absl::StatusOr<AttentionResults> results =
      RunAttentionCase(c, MakeInputs(c.problem, c.dtype), true, options);
  EXPECT_TRUE(results.ok()) << c.ToString() << ": " << results.status();
  return results.ok() ? *std::move(results) : AttentionResults();
}

// Whether any query of `reader` sees the key at `key`.
bool Needs(const MaskSpec& mask, const TokenShare& reader, int64_t key) {
  for (int64_t i = 0; i < reader.size(); ++i) {
    if (Sees(mask, reader.PositionAt(i), key)) return true;
  }
  return false;
}

// Keys that travel over one pass of K/V in the whole ring, straight from docs/formulas.md.
int64_t KeysThatTravel(const AttentionCase& c) {
  const std::vector<TokenShare> shares = RingShares(c.layout, c.problem.tokens, c.mesh.ring);
  int64_t keys = 0;
  for (int home = 0; home < c.mesh.ring; ++home) {
    for (int reader = 0; reader < c.mesh.ring; ++reader) {
      if (reader == home) continue;
      for (const Segment& segment : shares[home].segments()) {
        int64_t needed = 0;
        for (int64_t i = 0; i < segment.size(); ++i) {
          needed += Needs(c.problem.mask, shares[reader], segment.PositionAt(i));
        }
        // The ring moves a segment whole, gather the keys that are attended.
        keys += c.core == CoreKind::kGather ? needed : needed > 0 ? segment.size() : 0;
      }
    }
  }
  return keys;
}

// Messages of one pass of K/V, and of dK/dV: what one rank has for another in one step is one, and there are
// none of nothing. Home sends in the step before the first reader's, a reader when its own begins; sums leave
// a reader in the step after its own. Gather fetches in one step and brings back in another.
struct Messages {
  int64_t kv = 0, gradients = 0;
};
Messages MessagesThatTravel(const AttentionCase& c) {
  const int ring = c.mesh.ring;
  const bool gather = c.core == CoreKind::kGather;
  const std::vector<TokenShare> shares = RingShares(c.layout, c.problem.tokens, ring);
  std::set<std::tuple<int, int, int>> kv, gradients;  // from, to, step
  for (int home = 0; home < ring; ++home) {
    for (const Segment& segment : shares[home].segments()) {
      int holder = home, holders_step = 0;
      for (int step = 1; step < ring; ++step) {
        const int reader = (home + step) % ring;
        bool needed = false;
        for (int64_t i = 0; i < segment.size() && !needed; ++i) {
          needed = Needs(c.problem.mask, shares[reader], segment.PositionAt(i));
        }
        if (!needed) continue;
        if (gather) {
          kv.insert({home, reader, 0});
          gradients.insert({reader, home, 0});
          continue;
        }
        kv.insert({holder, reader, holder == home ? step - 1 : holders_step});
        if (holder != home) gradients.insert({holder, reader, holders_step + 1});
        holder = reader;
        holders_step = step;
      }
      if (holder != home) gradients.insert({holder, home, holders_step + 1});
    }
  }
  return {static_cast<int64_t>(kv.size()), static_cast<int64_t>(gradients.size())};
}

Traffic Total(const AttentionResults& results, TrafficKey key) {
  Traffic total;
  for (const auto& sent : results.traffic) {
    const auto found = sent.find(key);
    if (found == sent.end()) continue;
    total.bytes += found->second.bytes;
    total.messages += found->second.messages;
  }
  return total;
}

TEST(ScheduledAttentionTest, SendsEachKeyToWhomItIsAttendedBy) {
  for (const CoreKind core : {CoreKind::kRing, CoreKind::kGather}) {
    const Operation operation = core == CoreKind::kRing ? Operation::kRing : Operation::kGather;
    for (const Mesh& mesh : {Mesh{1, 1, 4, 4}, {1, 1, 6, 3}, {1, 1, 7, 7}}) {
      for (const LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
        for (int mask = 0; mask < kMatrixMasks; ++mask) {
          for (const DType dtype : {DType::kF32, DType::kBF16}) {
            const AttentionCase c = Case(mesh, core, layout, MatrixMask(mask, 61), 61, dtype);
            const AttentionResults results = Results(c);
            const int64_t elements = 2 * c.problem.batch * KeysThatTravel(c) * c.problem.kv_cols();
            // The ring fetches K/V again in backward; gather keeps them.
            const int64_t again = core == CoreKind::kRing ? elements * SizeOf(dtype) : 0;
            const Traffic forward = Total(results, {operation, Pass::kForward});
            const Traffic backward = Total(results, {operation, Pass::kBackward});
            EXPECT_EQ(forward.bytes, elements * SizeOf(dtype)) << c.ToString();
            EXPECT_EQ(backward.bytes, elements * 4 + again) << c.ToString();
            if (mesh.inner != mesh.ring) continue;  // a step of a double ring has messages of two rings
            const Messages messages = MessagesThatTravel(c);
            EXPECT_EQ(forward.messages, messages.kv) << c.ToString();
            EXPECT_EQ(backward.messages, messages.gradients + (again > 0 ? messages.kv : 0)) << c.ToString();
          }
        }
      }
    }
  }
}

TEST(ScheduledAttentionTest, RingOfEvenSharesSendsTheSameOnEveryRank) {
  constexpr int kRing = 4;
  constexpr int64_t kTokens = 64;
  const AttentionCase c =
      Case({1, 1, kRing, kRing}, CoreKind::kRing, LayoutKind::kContiguous, {MaskKind::kFull}, kTokens);
  const int64_t once = (kRing - 1) * kTokens / kRing * 2 * c.problem.batch * c.problem.kv_cols() * 4;
  for (const auto& sent : Results(c).traffic) {
    const Traffic forward = sent.at({Operation::kRing, Pass::kForward});
    const Traffic backward = sent.at({Operation::kRing, Pass::kBackward});
    EXPECT_EQ(forward.bytes, once);
    EXPECT_EQ(forward.messages, kRing - 1);
    EXPECT_EQ(backward.bytes, 2 * once);  // K/V again, and dK/dV
    EXPECT_EQ(backward.messages, 2 * (kRing - 1));
  }
}

TEST(ScheduledAttentionTest, ZigzagCausalSendsThreeQuartersOfTheRing) {
  const auto bytes = [](LayoutKind layout, MaskKind mask) {
    const AttentionResults results = Results(Case({1, 1, 4, 4}, CoreKind::kRing, layout, {mask}, 64));
    return Total(results, {Operation::kRing, Pass::kForward}).bytes;
  };
  const int64_t plain = bytes(LayoutKind::kContiguous, MaskKind::kFull);
  EXPECT_EQ(4 * bytes(LayoutKind::kZigzag, MaskKind::kCausal), 3 * plain);
  EXPECT_EQ(2 * bytes(LayoutKind::kContiguous, MaskKind::kCausal), plain);
}

TEST(ScheduledAttentionTest, OneRankSendsNothing) {
  for (const CoreKind core : {CoreKind::kRing, CoreKind::kGather}) {
    const AttentionResults results =
        Results(Case({1, 1, 1, 1}, core, LayoutKind::kContiguous, {MaskKind::kCausal}, 33));
    EXPECT_TRUE(results.traffic[0].empty());
  }
}

// Arrival in another order than last time must not show: here every link is slow in the last run.
TEST(ScheduledAttentionTest, SameBitsFromRunToRun) {
  for (const std::string& kernel : TestKernels()) {
    for (const CoreKind core : {CoreKind::kRing, CoreKind::kGather}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const AttentionCase c =
            Case({1, 2, 4, 2}, core, LayoutKind::kZigzag, {MaskKind::kCausal}, 131, dtype);
        SCOPED_TRACE(c.ToString() + " " + kernel);
        RunRanksOptions usual, slow;
        usual.kernel = slow.kernel = kernel;
        slow.bytes_per_second = 20e6;
        const AttentionResults first = Results(c, usual);
        for (const RunRanksOptions& options : {usual, slow}) {
          const AttentionResults again = Results(c, options);
          EXPECT_TRUE(first.out == again.out && first.lse == again.lse);
          EXPECT_TRUE(first.dq == again.dq && first.dk == again.dk && first.dv == again.dv);
        }
      }
    }
  }
}

}  // namespace
}  // namespace seqpar
