#include "common/parallel/kv_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/common/parallel/kv_schedule_world.h"

namespace seqpar {
namespace {

constexpr LayoutKind kLayouts[] = {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped};

KvVolume Total(const World& world) {
  KvVolume total;
  for (const KvSchedule& schedule : world.schedules) {
    const KvVolume volume = VolumeOf(schedule);
    total.forward_keys += volume.forward_keys;
    total.forward_messages += volume.forward_messages;
    total.backward_kv_keys += volume.backward_kv_keys;
    total.backward_kv_messages += volume.backward_kv_messages;
    total.backward_grad_keys += volume.backward_grad_keys;
    total.backward_grad_messages += volume.backward_grad_messages;
  }
  return total;
}

// formulas.md, ring: one hop of every segment for each other rank that attends a key of it.
int64_t RingHops(const World& world) {
  int64_t keys = 0;
  for (int home = 0; home < world.ranks(); ++home) {
    for (const Segment& segment : world.shares[home].segments()) {
      const std::vector<int64_t> positions = PositionsOf(TokenShare({segment}));
      for (int r = 0; r < world.ranks(); ++r) {
        if (r != home && NeedsAny(world, r, positions)) keys += segment.size();
      }
    }
  }
  return keys;
}

// formulas.md, gather: the keys that every rank attends of the others.
int64_t GatheredKeys(const World& world) {
  int64_t keys = 0;
  for (int home = 0; home < world.ranks(); ++home) {
    for (int64_t key : PositionsOf(world.shares[home])) {
      for (int r = 0; r < world.ranks(); ++r) keys += r != home && world.needs[r][key] ? 1 : 0;
    }
  }
  return keys;
}

int64_t LargestShare(const World& world) {
  int64_t largest = 0;
  for (const TokenShare& share : world.shares) largest = std::max(largest, share.size());
  return largest;
}

std::vector<Mask> MasksOf(int64_t tokens) {
  return {Mask(MaskKind::kFull, tokens),
          Mask(MaskKind::kCausal, tokens),
          Mask(MaskKind::kWindow, tokens, 4, 0),
          Mask(MaskKind::kWindow, tokens, 0, 7),
          Mask(MaskKind::kWindow, tokens, tokens / 3, tokens / 5),
          Mask(MaskKind::kWindow, tokens, 0, 0),
          Mask(MaskKind::kWindow, tokens, -1, 3),
          Mask(MaskKind::kFull, tokens, -1, -1, {tokens / 2, 1, tokens - tokens / 2 - 1}),
          Mask(MaskKind::kCausal, tokens, -1, -1, {2, tokens / 4, tokens - tokens / 4 - 2}),
          Mask(MaskKind::kWindow, tokens, 6, 2, {tokens / 3, tokens - tokens / 3})};
}

class KvScheduleTest : public testing::TestWithParam<int> {};

TEST_P(KvScheduleTest, RingsComputeEveryNeededKeyOnceAndBringEveryGradientHome) {
  const int ranks = GetParam();
  for (int64_t tokens : {5, 31, 131}) {
    for (const Mask& mask : MasksOf(tokens)) {
      for (LayoutKind layout : kLayouts) {
        for (int inner = 1; inner <= ranks; ++inner) {
          if (ranks % inner != 0) continue;
          SCOPED_TRACE(testing::Message() << LayoutName(layout) << ", " << mask.ToString() << ", " << tokens
                                          << " tokens, inner " << inner);
          const World world = MakeRing(layout, mask, ranks, inner);
          ASSERT_NO_FATAL_FAILURE(ExpectSound(world, /*exact=*/false));
          const KvVolume total = Total(world);
          ASSERT_EQ(total.forward_keys, RingHops(world));
          ASSERT_EQ(total.backward_kv_keys, total.forward_keys);
          ASSERT_EQ(total.backward_kv_messages, total.forward_messages);
          ASSERT_EQ(total.backward_grad_keys, total.forward_keys);
        }
      }
    }
  }
}

TEST_P(KvScheduleTest, GatherFetchesExactlyTheAttendedKeys) {
  const int ranks = GetParam();
  for (int64_t tokens : {5, 31, 131}) {
    for (const Mask& mask : MasksOf(tokens)) {
      for (LayoutKind layout : kLayouts) {
        SCOPED_TRACE(testing::Message()
                     << LayoutName(layout) << ", " << mask.ToString() << ", " << tokens << " tokens");
        const World world = MakeGather(layout, mask, ranks);
        ASSERT_NO_FATAL_FAILURE(ExpectSound(world, /*exact=*/true));
        const KvVolume total = Total(world);
        ASSERT_EQ(total.forward_keys, GatheredKeys(world));
        ASSERT_EQ(total.backward_kv_keys, 0);
        ASSERT_EQ(total.backward_kv_messages, 0);
        ASSERT_EQ(total.backward_grad_keys, total.forward_keys);
        ASSERT_EQ(total.backward_grad_messages, total.forward_messages);
      }
    }
  }
}

TEST_P(KvScheduleTest, FullMaskSendsTheFormulasBytesAndMessages) {
  const int ranks = GetParam();
  const int64_t tokens = 12 * ranks;
  for (LayoutKind layout : kLayouts) {
    const World world = MakeRing(layout, Mask(MaskKind::kFull, tokens), ranks, ranks);
    for (const KvSchedule& schedule : world.schedules) {
      const KvVolume volume = VolumeOf(schedule);
      EXPECT_EQ(volume.forward_keys, (ranks - 1) * tokens / ranks);
      EXPECT_EQ(volume.forward_messages, ranks - 1);
      EXPECT_EQ(volume.backward_kv_messages + volume.backward_grad_messages, 2 * (ranks - 1));
    }
  }
}

TEST_P(KvScheduleTest, CausalBalanceSavesHops) {
  const int ranks = GetParam();
  const int64_t tokens = 12 * ranks;
  const Mask mask(MaskKind::kCausal, tokens);
  const int64_t plain = (ranks - 1) * tokens;
  EXPECT_EQ(4 * Total(MakeRing(LayoutKind::kZigzag, mask, ranks, ranks)).forward_keys, 3 * plain);
  EXPECT_EQ(2 * Total(MakeRing(LayoutKind::kContiguous, mask, ranks, ranks)).forward_keys, plain);
  EXPECT_EQ(Total(MakeRing(LayoutKind::kStriped, mask, ranks, ranks)).forward_keys, plain);
}

TEST_P(KvScheduleTest, TwoSharesOfBufferSufficeInARingAndThreeInADoubleRing) {
  const int ranks = GetParam();
  for (int64_t tokens : {16, 31, 131, 4099}) {
    for (MaskKind kind : {MaskKind::kFull, MaskKind::kCausal}) {
      for (LayoutKind layout : kLayouts) {
        for (int inner = 1; inner <= ranks; ++inner) {
          if (ranks % inner != 0) continue;
          SCOPED_TRACE(testing::Message()
                       << LayoutName(layout) << ", " << tokens << " tokens, inner " << inner);
          const Mask mask(kind, tokens);
          const std::vector<TokenShare> shares = RingShares(layout, tokens, ranks);
          int64_t largest = 0;
          for (const TokenShare& share : shares) largest = std::max(largest, share.size());
          // In a double ring the outer share is held while the inner ring turns, and gradients that cross
          // into a node wait for its turn.
          const int64_t most = inner == 1 || inner == ranks ? 2 : 3;
          for (const KvSchedule& schedule : RingSchedules(shares, mask, inner)) {
            EXPECT_LE(schedule.buffer_keys, most * largest) << schedule.rank;
            EXPECT_LE(schedule.grad_keys, 2 * largest) << schedule.rank;
            EXPECT_LE(schedule.grad_recv_keys, most * largest) << schedule.rank;
          }
        }
      }
    }
  }
}

TEST_P(KvScheduleTest, PiecesOfAMessageAreOneStretchOfTheBuffer) {
  const int ranks = GetParam();
  for (const Mask& mask : {Mask(MaskKind::kFull, 131), Mask(MaskKind::kCausal, 131)}) {
    for (LayoutKind layout : kLayouts) {
      for (const World& world : {MakeRing(layout, mask, ranks, ranks), MakeGather(layout, mask, ranks)}) {
        for (const KvSchedule& schedule : world.schedules) {
          for (const KvSlot& slot : schedule.slots) {
            for (const KvMessage& message : slot.recv_kv) {
              int64_t next = schedule.pieces[message.pieces[0]].buffer_offset;
              for (int index : message.pieces) {
                EXPECT_EQ(schedule.pieces[index].buffer_offset, next);
                next += schedule.pieces[index].size;
              }
            }
          }
        }
      }
    }
  }
}

TEST_P(KvScheduleTest, DoubleRingCrossesNodesOnceForEachNode) {
  const int ranks = GetParam();
  const Mask mask(MaskKind::kFull, 131);
  for (int inner = 1; inner <= ranks; ++inner) {
    if (ranks % inner != 0) continue;
    const int nodes = ranks / inner;
    for (LayoutKind layout : kLayouts) {
      const World world = MakeRing(layout, mask, ranks, inner);
      std::map<std::pair<int, int64_t>, int> kv, grad;  // crossings by home and first key
      for (const KvSchedule& schedule : world.schedules) {
        auto count = [&](const std::vector<KvMessage>& messages, auto& crossings) {
          for (const KvMessage& message : messages) {
            if (message.peer / inner == schedule.rank / inner) continue;
            for (int index : message.pieces) {
              const KvPiece& piece = schedule.pieces[index];
              ++crossings[{piece.home, piece.keys.PositionAt(0)}];
            }
          }
        };
        for (const KvSlot& slot : schedule.slots) {
          count(slot.send_kv, kv);
          count(slot.send_grad, grad);
        }
      }
      if (nodes == 1) {
        EXPECT_TRUE(kv.empty() && grad.empty());
        continue;
      }
      EXPECT_GE(static_cast<int>(kv.size()), ranks);
      for (const auto& entry : kv) EXPECT_EQ(entry.second, nodes - 1);
      EXPECT_EQ(grad.size(), kv.size());
      // Gradients begin at the first rank that needs the piece: within home's node, where that has others.
      for (const auto& entry : grad) EXPECT_EQ(entry.second, inner > 1 ? nodes : nodes - 1);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, KvScheduleTest, testing::Range(1, 9), [](const auto& info) {
  return std::string("R").append(std::to_string(info.param));
});

TEST(RingScheduleTest, WorksOnSharesInRingOrder) {
  const World world = MakeRing(LayoutKind::kContiguous, Mask(MaskKind::kFull, 31), 6, 6);
  for (const KvSchedule& schedule : world.schedules) {
    for (int s = 0; s < 6; ++s) {
      ASSERT_EQ(schedule.slots[s].work.size(), 1u);
      EXPECT_EQ(schedule.pieces[schedule.slots[s].work[0]].home, (schedule.rank - s + 6) % 6);
    }
    EXPECT_TRUE(schedule.slots[6].work.empty());
  }
}

TEST(RingScheduleTest, BackwardKeepsWorkAtHomeForTheLastWayOfGradients) {
  for (const int ranks : {2, 4}) {
    const World zigzag = MakeRing(LayoutKind::kZigzag, Mask(MaskKind::kCausal, 64), ranks, ranks);
    for (const KvSchedule& schedule : zigzag.schedules) EXPECT_EQ(schedule.late_keys, 32 / ranks);
    const World striped = MakeGather(LayoutKind::kStriped, Mask(MaskKind::kFull, 64), ranks);
    for (const KvSchedule& schedule : striped.schedules) EXPECT_EQ(schedule.late_keys, 32 / ranks);
  }
  // In the last slot only the first share's gradients travel, from the last rank.
  const World causal = MakeRing(LayoutKind::kContiguous, Mask(MaskKind::kCausal, 64), 4, 4);
  const std::vector<int64_t> late = {8, 16, 16, 8};
  for (int r = 0; r < 4; ++r) EXPECT_EQ(causal.schedules[r].late_keys, late[r]) << r;
  EXPECT_EQ(MakeRing(LayoutKind::kContiguous, Mask(MaskKind::kCausal, 64), 1, 1).schedules[0].late_keys, 64);
}

TEST(RingScheduleTest, DoubleRingTurnsTheInnerRingFirst) {
  const World world = MakeRing(LayoutKind::kContiguous, Mask(MaskKind::kFull, 31), 6, 3);
  for (const KvSchedule& schedule : world.schedules) {
    for (int s = 0; s < 6; ++s) {
      const int node = (schedule.rank / 3 - s / 3 + 2) % 2;
      const int position = (schedule.rank % 3 - s % 3 + 3) % 3;
      ASSERT_EQ(schedule.slots[s].work.size(), 1u);
      EXPECT_EQ(schedule.pieces[schedule.slots[s].work[0]].home, node * 3 + position);
    }
    // The outer block leaves for the next node while the inner ring turns for the first time.
    EXPECT_EQ(schedule.slots[0].send_kv.size(), 2u);
  }
}

TEST(RingScheduleTest, AWindowTalksToNeighboursOnly) {
  const World world = MakeRing(LayoutKind::kContiguous, Mask(MaskKind::kWindow, 4099, 100, 0), 8, 8);
  for (const KvSchedule& schedule : world.schedules) {
    EXPECT_EQ(VolumeOf(schedule).forward_messages, schedule.rank < 7 ? 1 : 0);
    EXPECT_LE(schedule.buffer_keys, LargestShare(world));
  }
}

TEST(RingScheduleTest, AllSchedulesAtOnceAreTheSame) {
  const Mask mask(MaskKind::kCausal, 131);
  const std::vector<TokenShare> shares = RingShares(LayoutKind::kZigzag, 131, 6);
  const std::vector<KvSchedule> schedules = RingSchedules(shares, mask, 3);
  ASSERT_EQ(schedules.size(), 6u);
  for (int r = 0; r < 6; ++r) {
    const KvSchedule one = RingSchedule(shares, mask, r, 3);
    EXPECT_EQ(schedules[r].rank, r);
    EXPECT_EQ(schedules[r].buffer_keys, one.buffer_keys);
    EXPECT_EQ(VolumeOf(schedules[r]).forward_keys, VolumeOf(one).forward_keys);
    ASSERT_EQ(schedules[r].pieces.size(), one.pieces.size());
    for (size_t i = 0; i < one.pieces.size(); ++i) EXPECT_EQ(schedules[r].pieces[i].keys, one.pieces[i].keys);
  }
}

TEST(RingScheduleTest, LongOddSequences) {
  for (int ranks : {7, 8}) {
    for (LayoutKind layout : kLayouts) {
      const Mask mask(MaskKind::kWindow, 4099, 700, 0, {1500, 2599});
      ASSERT_NO_FATAL_FAILURE(ExpectSound(MakeRing(layout, mask, ranks, ranks), /*exact=*/false));
      ASSERT_NO_FATAL_FAILURE(ExpectSound(MakeGather(layout, mask, ranks), /*exact=*/true));
    }
  }
}

TEST(GatherScheduleTest, OneMessageForEachPairThenStraightHome) {
  const World world = MakeGather(LayoutKind::kZigzag, Mask(MaskKind::kFull, 31), 5);
  for (const KvSchedule& schedule : world.schedules) {
    EXPECT_TRUE(schedule.kv_kept);
    ASSERT_EQ(schedule.slots.size(), 3u);
    EXPECT_EQ(schedule.slots[0].send_kv.size(), 4u);
    EXPECT_EQ(schedule.slots[2].send_grad.size(), 4u);
    ASSERT_EQ(schedule.slots[0].work.size(), 1u);
    EXPECT_EQ(schedule.pieces[schedule.slots[0].work[0]].home, schedule.rank);
    ASSERT_EQ(schedule.slots[1].work.size(), 4u);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(schedule.pieces[schedule.slots[1].work[i]].home, (schedule.rank - 1 - i + 5) % 5);
    }
    EXPECT_EQ(schedule.buffer_keys, 31 - world.shares[schedule.rank].size());
  }
}

TEST(RingScheduleTest, RefusesAnInnerRingThatDoesNotDivide) {
  const std::vector<TokenShare> shares = RingShares(LayoutKind::kContiguous, 31, 6);
  EXPECT_DEATH(RingSchedule(shares, Mask(MaskKind::kFull, 31), 0, 4), "check failed");
}

}  // namespace
}  // namespace seqpar
