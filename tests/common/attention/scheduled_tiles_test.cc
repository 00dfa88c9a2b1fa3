// What is known of a rank's tiles before it runs is what it runs.
#include "common/attention/scheduled_tiles.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/attention/strategies.h"
#include "common/base/status.h"
#include "gtest/gtest.h"
#include "tests/common/attention/kernel_hooks.h"
#include "tests/common/attention/recording.h"
#include "tests/oracle/meshes.h"

namespace seqpar {
namespace {

std::string ToString(const Matrix& m) {
  return absl::StrCat(SizeOf(m.dtype), " ", m.rows, " x ", m.cols, " by ", m.ld);
}
// Everything but where the data lies.
std::string ToString(const AttentionTile& tile) {
  const HeadRange& h = tile.heads;
  std::string text = absl::StrCat(
      tile.batch, " heads [", h.q_begin, ", ", h.q_end, ") kv [", h.kv_begin, ", ", h.kv_end, ") of ",
      tile.group, " by ", tile.head_dim, " scaled ", tile.scale, " queries ", tile.queries, " keys ",
      tile.keys, " q ", ToString(tile.q), " k ", ToString(tile.k), " v ", ToString(tile.v), " seen");
  for (size_t i = 0; i < tile.ranges->lo.size(); ++i) {
    absl::StrAppend(&text, " ", tile.ranges->lo[i], "-", tile.ranges->hi[i]);
  }
  return text;
}
std::vector<std::string> ToStrings(const std::vector<AttentionTile>& tiles) {
  std::vector<std::string> texts;
  for (const AttentionTile& tile : tiles) texts.push_back(ToString(tile));
  return texts;
}

struct Tiles {
  std::vector<std::string> forward, backward;
};

// Both passes of the plan's rank, with nobody else there.
absl::StatusOr<Tiles> Run(const AttentionPlan& plan) {
  Tiles tiles;
  Recording recording;
  HookedDevice device([&](const std::string&) { return recording.MakeStream(); },
                      [&](Stream&, const AttentionTile& tile, const Matrix* dk) {
                        EXPECT_NE(tile.q.data, nullptr);
                        (dk == nullptr ? tiles.forward : tiles.backward).push_back(ToString(tile));
                      });
  const auto compute = recording.MakeStream(), comm = recording.MakeStream();
  const Mesh& mesh = plan.tokens.mesh();
  const MeshCoord at = mesh.CoordOf(plan.rank);
  const auto ulysses = recording.MakeCommunicator(at.ulysses, mesh.ulysses);
  const auto ring = recording.MakeCommunicator(at.ring, mesh.ring);
  SEQPAR_ASSIGN_OR_RETURN(
      const std::unique_ptr<AttentionCore> core,
      MakeAttention(plan, {&device, compute.get(), comm.get()}, {ulysses.get(), ring.get()}));
  const AttentionShape& shape = plan.shape;
  const int64_t rows = core->tokens().size() * shape.batch;
  const int64_t q_cols = int64_t{core->heads().q_heads()} * shape.head_dim;
  const int64_t kv_cols = int64_t{2} * core->heads().kv_heads() * shape.head_dim;
  std::vector<char> memory(rows * std::max(q_cols, kv_cols) * SizeOf(shape.dtype) + 1);
  const Matrix q(memory.data(), shape.dtype, rows, q_cols), kv(memory.data(), shape.dtype, rows, kv_cols);
  SEQPAR_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionState> state, core->NewState());
  std::vector<char> scratch(
      std::max(core->ScratchBytes(Pass::kForward), core->ScratchBytes(Pass::kBackward)) + 1);
  core->Forward(q, kv, q, state.get(), scratch.data());
  core->Backward(q, kv, q, q, state.get(), q, kv, scratch.data());
  return tiles;
}

void ExpectKnown(const AttentionPlan& plan) {
  const absl::StatusOr<Tiles> ran = Run(plan);
  ASSERT_TRUE(ran.ok()) << ran.status();
  const absl::StatusOr<AttentionCalls> known = AttentionTiles(plan);
  ASSERT_TRUE(known.ok()) << known.status();
  for (const auto* tiles : {&known->forward, &known->backward}) {
    for (const AttentionTile& tile : *tiles) {
      EXPECT_EQ(tile.q.data, nullptr);
      EXPECT_EQ(tile.k.data, nullptr);
    }
  }
  EXPECT_EQ(ToStrings(known->forward), ran->forward);
  EXPECT_EQ(ToStrings(known->backward), ran->backward);
}

// Every mesh of the matrix up to six ranks, each rank, by what its axes are: `core` where there is a ring.
void ExpectKnownOnEveryMesh(CoreKind core, LayoutKind layout, const Mask& mask, DType dtype, int64_t batch) {
  constexpr int kHeads = 6, kKvHeads = 2, kHeadDim = 8;
  for (const Mesh& mesh : AllMeshes(6)) {
    const StrategyKind strategy = StrategyOfMesh(mesh, core);
    const AttentionShape shape{batch, kHeadDim, kHeads / kKvHeads, dtype};
    AttentionPlan plan{
        strategy, core, TokenLayout(mesh, layout, mask.tokens()), HeadLayout(mesh, kHeads, kKvHeads), mask,
        shape,    0};
    for (plan.rank = 0; plan.rank < mesh.size(); ++plan.rank) {
      SCOPED_TRACE(absl::StrCat(mesh.ToString(), " ", StrategyName(strategy), " ", CoreName(core), " ",
                                LayoutName(layout), " rank ", plan.rank));
      ExpectKnown(plan);
    }
  }
}

TEST(ScheduledTilesTest, AreWhatARingCalls) {
  for (const LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped}) {
    ExpectKnownOnEveryMesh(CoreKind::kRing, layout, Mask(MaskKind::kCausal, 67), DType::kBF16, 1);
  }
  ExpectKnownOnEveryMesh(CoreKind::kRing, LayoutKind::kZigzag, Mask(MaskKind::kFull, 67), DType::kF32, 2);
}

TEST(ScheduledTilesTest, AreWhatAGatherCalls) {
  for (const LayoutKind layout : {LayoutKind::kContiguous, LayoutKind::kZigzag}) {
    ExpectKnownOnEveryMesh(CoreKind::kGather, layout, Mask(MaskKind::kWindow, 67, 20, 0), DType::kBF16, 1);
    ExpectKnownOnEveryMesh(CoreKind::kGather, layout, Mask(MaskKind::kCausal, 67, -1, -1, {30, 12, 25}),
                           DType::kBF16, 2);
  }
}

// Devices keep what they make of key ranges by their address: alike ones are one.
TEST(ScheduledTilesTest, ShareTheirRangesBetweenPasses) {
  const Mesh mesh{1, 1, 4, 4};
  AttentionPlan plan{StrategyKind::kRing,
                     CoreKind::kRing,
                     TokenLayout(mesh, LayoutKind::kZigzag, 64),
                     HeadLayout(mesh, 2, 1),
                     Mask(MaskKind::kCausal, 64),
                     AttentionShape{1, 8, 2, DType::kBF16},
                     0};
  // The last rank's two segments are one, which backward cuts.
  for (plan.rank = 0; plan.rank < mesh.size() - 1; ++plan.rank) {
    const AttentionCalls calls = AttentionTiles(plan).value();
    std::set<const KeyRanges*> forward, backward;
    for (const AttentionTile& tile : calls.forward) forward.insert(tile.ranges.get());
    for (const AttentionTile& tile : calls.backward) backward.insert(tile.ranges.get());
    EXPECT_GT(forward.size(), 1u);
    EXPECT_EQ(forward, backward) << "rank " << plan.rank;
  }
}

TEST(ScheduledTilesTest, OfAMeshThatIsNoneAreRefused) {
  const Mesh mesh{1, 4, 1, 1};
  const AttentionPlan plan{StrategyKind::kUlysses,
                           CoreKind::kRing,
                           TokenLayout(mesh, LayoutKind::kContiguous, 64),
                           HeadLayout(Mesh{1, 1, 1, 1}, 3, 1),
                           Mask(MaskKind::kCausal, 64),
                           AttentionShape{1, 8, 3, DType::kBF16},
                           0};
  EXPECT_EQ(AttentionTiles(plan).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace seqpar
