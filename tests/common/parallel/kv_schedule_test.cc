// Plays the schedules of all ranks against each other, slot by slot, in a world where a key is its position
// and a gradient is the set of ranks that contributed to it. The world is as hostile as the contract allows:
// what a slot's exchange will overwrite is garbage from the beginning of the slot.
#include "common/parallel/kv_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace seqpar {
namespace {

constexpr LayoutKind kLayouts[] = {LayoutKind::kContiguous, LayoutKind::kZigzag, LayoutKind::kStriped};

struct World {
  std::vector<TokenShare> shares;
  Mask mask;
  std::vector<KvSchedule> schedules;
  // needs[rank][key position]: a query of the rank attends the key. From the definition of a mask alone.
  std::vector<std::vector<bool>> needs;

  int ranks() const { return static_cast<int>(shares.size()); }
  int slots() const { return static_cast<int>(schedules[0].slots.size()); }
};

std::vector<int64_t> PositionsOf(const TokenShare& share) {
  std::vector<int64_t> positions;
  for (const Segment& segment : share.segments()) {
    for (int64_t i = 0; i < segment.size(); ++i) positions.push_back(segment.PositionAt(i));
  }
  return positions;
}

World MakeWorld(LayoutKind layout, const Mask& mask, int ranks) {
  World world{.shares = RingShares(layout, mask.tokens(), ranks), .mask = mask};
  for (const TokenShare& share : world.shares) {
    std::vector<bool>& needed = world.needs.emplace_back(mask.tokens(), false);
    for (int64_t p : PositionsOf(share)) {
      for (int64_t key = mask.Lo(p); key < mask.Hi(p); ++key) needed[key] = true;
    }
  }
  return world;
}

World MakeRing(LayoutKind layout, const Mask& mask, int ranks, int inner) {
  World world = MakeWorld(layout, mask, ranks);
  for (int r = 0; r < ranks; ++r) world.schedules.push_back(RingSchedule(world.shares, mask, r, inner));
  return world;
}

World MakeGather(LayoutKind layout, const Mask& mask, int ranks) {
  World world = MakeWorld(layout, mask, ranks);
  for (int r = 0; r < ranks; ++r) world.schedules.push_back(GatherSchedule(world.shares, mask, r));
  return world;
}

bool NeedsAny(const World& world, int rank, const std::vector<int64_t>& keys) {
  return std::any_of(keys.begin(), keys.end(), [&](int64_t key) { return world.needs[rank][key]; });
}

// --- Messages
// ---------------------------------------------------------------------------------------------------------

std::vector<KvMessage> KvSlot::*const kDirections[][2] = {{&KvSlot::send_kv, &KvSlot::recv_kv},
                                                          {&KvSlot::send_grad, &KvSlot::recv_grad}};

// Both ends of every message exist and list the same pieces in the same order; none is empty; peers ascend.
void ExpectMessagesMatch(const World& world) {
  for (int s = 0; s < world.slots(); ++s) {
    for (auto& direction : kDirections) {
      size_t sent = 0, received = 0;
      for (int a = 0; a < world.ranks(); ++a) {
        const KvSchedule& sender = world.schedules[a];
        ASSERT_EQ(static_cast<int>(sender.slots.size()), world.slots());
        received += (sender.slots[s].*direction[1]).size();
        int last_peer = -1;
        for (const KvMessage& message : sender.slots[s].*direction[0]) {
          ++sent;
          ASSERT_GT(message.peer, last_peer);
          ASSERT_NE(message.peer, a);
          last_peer = message.peer;
          const KvSchedule& receiver = world.schedules[message.peer];
          const auto& incoming = receiver.slots[s].*direction[1];
          const auto match =
              std::find_if(incoming.begin(), incoming.end(), [a](const KvMessage& m) { return m.peer == a; });
          ASSERT_NE(match, incoming.end()) << "slot " << s << " from " << a << " to " << message.peer;
          ASSERT_EQ(match->pieces.size(), message.pieces.size());
          int64_t keys = 0;
          for (size_t i = 0; i < message.pieces.size(); ++i) {
            const KvPiece& out = sender.pieces[message.pieces[i]];
            const KvPiece& in = receiver.pieces[match->pieces[i]];
            ASSERT_EQ(out.home, in.home);
            ASSERT_EQ(out.ranges, in.ranges);
            ASSERT_EQ(out.keys, in.keys);
            ASSERT_EQ(out.size, in.size);
            keys += out.size;
          }
          ASSERT_GT(keys, 0);
          ASSERT_EQ(message.keys, keys);
          ASSERT_EQ(match->keys, keys);
        }
      }
      ASSERT_EQ(sent, received) << "slot " << s;
    }
  }
}

// A piece's ranges index its keys in its home's share, and it has a place here exactly where it is not at
// home.
void ExpectPiecesAreWellFormed(const World& world) {
  for (const KvSchedule& schedule : world.schedules) {
    for (const KvPiece& piece : schedule.pieces) {
      std::vector<int64_t> keys;
      int64_t end = -1;
      for (const IndexRange& range : piece.ranges) {
        ASSERT_GT(range.begin, end);  // disjoint and not adjacent
        ASSERT_GT(range.end, range.begin);
        end = range.end;
        const std::vector<int64_t> part = PositionsOf(world.shares[piece.home].Slice(range.begin, range.end));
        keys.insert(keys.end(), part.begin(), part.end());
      }
      ASSERT_EQ(keys, PositionsOf(piece.keys));
      ASSERT_EQ(piece.size, piece.keys.size());
      const bool at_home = piece.home == schedule.rank;
      ASSERT_EQ(piece.buffer_offset < 0, at_home);
      ASSERT_EQ(piece.grad_offset < 0, at_home);
      if (at_home) {
        ASSERT_LT(piece.grad_recv_offset, 0);
      } else {
        ASSERT_LE(piece.buffer_offset + piece.size, schedule.buffer_keys);
        ASSERT_LE(piece.grad_offset + piece.size, schedule.grad_keys);
      }
    }
  }
}

// --- Forward
// ----------------------------------------------------------------------------------------------------------

constexpr int64_t kGarbage = -1;
using KeyBuffers = std::vector<std::vector<int64_t>>;  // by rank

// What a rank reads as a piece's keys.
std::vector<int64_t> ReadKeys(const World& world, const KeyBuffers& buffers, int rank, const KvPiece& piece) {
  if (piece.home == rank) return PositionsOf(piece.keys);
  const auto begin = buffers[rank].begin() + piece.buffer_offset;
  return {begin, begin + piece.size};
}

void Receive(const World& world, int slot, KeyBuffers& buffers, bool garbage) {
  for (int r = 0; r < world.ranks(); ++r) {
    const KvSchedule& schedule = world.schedules[r];
    for (const KvMessage& message : schedule.slots[slot].recv_kv) {
      for (int index : message.pieces) {
        const KvPiece& piece = schedule.pieces[index];
        const std::vector<int64_t> keys = PositionsOf(piece.keys);
        for (int64_t i = 0; i < piece.size; ++i) {
          buffers[r][piece.buffer_offset + i] = garbage ? kGarbage : keys[i];
        }
      }
    }
  }
}

// Every key that a rank attends is worked on by it exactly once, every key sent or worked on is really there.
// With `exact`, no other key is received.
void PlayForward(const World& world, bool exact) {
  KeyBuffers buffers;
  std::vector<std::vector<int>> worked(world.ranks(), std::vector<int>(world.mask.tokens(), 0));
  for (const KvSchedule& schedule : world.schedules) buffers.emplace_back(schedule.buffer_keys, kGarbage);
  for (int s = 0; s < world.slots(); ++s) {
    Receive(world, s, buffers, /*garbage=*/true);
    for (int r = 0; r < world.ranks(); ++r) {
      const KvSchedule& schedule = world.schedules[r];
      for (const KvMessage& message : schedule.slots[s].send_kv) {
        for (int index : message.pieces) {
          const KvPiece& piece = schedule.pieces[index];
          ASSERT_EQ(ReadKeys(world, buffers, r, piece), PositionsOf(piece.keys))
              << "sent by " << r << " in " << s;
        }
      }
      for (int index : schedule.slots[s].work) {
        const KvPiece& piece = schedule.pieces[index];
        const std::vector<int64_t> keys = PositionsOf(piece.keys);
        ASSERT_EQ(ReadKeys(world, buffers, r, piece), keys) << "worked on by " << r << " in " << s;
        ASSERT_TRUE(NeedsAny(world, r, keys)) << "rank " << r << " attends nothing of its work in slot " << s;
        for (int64_t key : keys) ++worked[r][key];
      }
    }
    Receive(world, s, buffers, /*garbage=*/false);
  }
  for (int r = 0; r < world.ranks(); ++r) {
    for (int64_t key = 0; key < world.mask.tokens(); ++key) {
      ASSERT_LE(worked[r][key], exact && !world.needs[r][key] ? 0 : 1) << "rank " << r << " key " << key;
      ASSERT_GE(worked[r][key], world.needs[r][key] ? 1 : 0) << "rank " << r << " key " << key;
    }
    if (!world.schedules[r].kv_kept) continue;
    for (const KvPiece& piece : world.schedules[r].pieces) {
      ASSERT_EQ(ReadKeys(world, buffers, r, piece), PositionsOf(piece.keys)) << "kept until the end by " << r;
    }
  }
}

// --- Backward
// ---------------------------------------------------------------------------------------------------------

// The gradient of one key: who contributed to it.
struct Grad {
  int64_t key = kGarbage;
  uint64_t ranks = 0;
  friend bool operator==(const Grad&, const Grad&) = default;
};
using GradBuffers = std::vector<std::vector<Grad>>;  // by rank

struct GradWorld {
  GradBuffers sums, received;
  std::vector<Grad> home;  // by position
};

std::vector<Grad> OwnPart(const KvPiece& piece, int rank) {
  std::vector<Grad> part;
  for (int64_t key : PositionsOf(piece.keys)) part.push_back(Grad{.key = key, .ranks = uint64_t{1} << rank});
  return part;
}

void AddInto(Grad& sum, const Grad& part) {
  ASSERT_EQ(sum.key, part.key);
  ASSERT_EQ(sum.ranks & part.ranks, 0u) << "key " << sum.key << " counted twice";
  ASSERT_NE(part.ranks, 0u);
  sum.ranks |= part.ranks;
}

void Garbage(const World& world, int slot, GradWorld& grads) {
  for (int r = 0; r < world.ranks(); ++r) {
    const KvSchedule& schedule = world.schedules[r];
    for (const KvMessage& message : schedule.slots[slot].recv_grad) {
      ASSERT_EQ(message.offsets.size(), message.pieces.size());
      for (size_t i = 0; i < message.pieces.size(); ++i) {
        const KvPiece& piece = schedule.pieces[message.pieces[i]];
        ASSERT_LE(message.offsets[i] + piece.size, schedule.grad_recv_keys);
        if (piece.home != r) {
          ASSERT_EQ(message.offsets[i], piece.grad_recv_offset);
        }
        std::fill_n(grads.received[r].begin() + message.offsets[i], piece.size, Grad{});
      }
    }
  }
}

void Work(const World& world, int slot, GradWorld& grads) {
  for (int r = 0; r < world.ranks(); ++r) {
    for (int index : world.schedules[r].slots[slot].work) {
      const KvPiece& piece = world.schedules[r].pieces[index];
      const std::vector<Grad> part = OwnPart(piece, r);
      if (piece.home == r) {
        for (const Grad& grad : part) ASSERT_NO_FATAL_FAILURE(AddInto(grads.home[grad.key], grad));
      } else {
        std::copy(part.begin(), part.end(), grads.sums[r].begin() + piece.grad_offset);
      }
    }
  }
}

// From sums, as they are after the slot's work has begun new ones, to the receive buffers.
void Exchange(const World& world, int slot, GradWorld& grads) {
  for (int r = 0; r < world.ranks(); ++r) {
    for (const KvMessage& message : world.schedules[r].slots[slot].send_grad) {
      const KvSchedule& receiver = world.schedules[message.peer];
      const auto& incoming = receiver.slots[slot].recv_grad;
      const auto match =
          std::find_if(incoming.begin(), incoming.end(), [r](const KvMessage& m) { return m.peer == r; });
      ASSERT_NE(match, incoming.end());
      for (size_t i = 0; i < message.pieces.size(); ++i) {
        const KvPiece& piece = world.schedules[r].pieces[message.pieces[i]];
        std::copy_n(grads.sums[r].begin() + piece.grad_offset, piece.size,
                    grads.received[message.peer].begin() + match->offsets[i]);
      }
    }
  }
}

void AddArrived(const World& world, int slot, GradWorld& grads) {
  for (int r = 0; r < world.ranks(); ++r) {
    const KvSchedule& schedule = world.schedules[r];
    for (int index : schedule.slots[slot].work) {
      const KvPiece& piece = schedule.pieces[index];
      if (piece.grad_recv_offset < 0) continue;
      for (int64_t i = 0; i < piece.size; ++i) {
        ASSERT_NO_FATAL_FAILURE(
            AddInto(grads.sums[r][piece.grad_offset + i], grads.received[r][piece.grad_recv_offset + i]));
      }
    }
    for (const KvMessage& message : schedule.slots[slot].recv_grad) {
      for (size_t m = 0; m < message.pieces.size(); ++m) {
        const KvPiece& piece = schedule.pieces[message.pieces[m]];
        if (piece.home != r) continue;
        const std::vector<int64_t> keys = PositionsOf(piece.keys);
        for (int64_t i = 0; i < piece.size; ++i) {
          ASSERT_NO_FATAL_FAILURE(AddInto(grads.home[keys[i]], grads.received[r][message.offsets[m] + i]));
        }
      }
    }
  }
}

// Every contribution reaches home exactly once.
void PlayBackward(const World& world) {
  GradWorld grads;
  for (const KvSchedule& schedule : world.schedules) {
    grads.sums.emplace_back(schedule.grad_keys);
    grads.received.emplace_back(schedule.grad_recv_keys);
  }
  for (int64_t key = 0; key < world.mask.tokens(); ++key) grads.home.push_back(Grad{.key = key});
  std::vector<uint64_t> expected(world.mask.tokens(), 0);
  for (int s = 0; s < world.slots(); ++s) {
    ASSERT_NO_FATAL_FAILURE(Garbage(world, s, grads));
    ASSERT_NO_FATAL_FAILURE(Work(world, s, grads));
    ASSERT_NO_FATAL_FAILURE(Exchange(world, s, grads));
    ASSERT_NO_FATAL_FAILURE(AddArrived(world, s, grads));
    for (int r = 0; r < world.ranks(); ++r) {
      for (int index : world.schedules[r].slots[s].work) {
        for (int64_t key : PositionsOf(world.schedules[r].pieces[index].keys))
          expected[key] |= uint64_t{1} << r;
      }
    }
  }
  for (int64_t key = 0; key < world.mask.tokens(); ++key) {
    ASSERT_EQ(grads.home[key].ranks, expected[key]) << "key " << key;
    for (int r = 0; r < world.ranks(); ++r) {
      const bool contributed = (grads.home[key].ranks >> r & 1) != 0;
      ASSERT_TRUE(contributed || !world.needs[r][key]) << "key " << key << " rank " << r;
    }
  }
}

// --- Volume
// -----------------------------------------------------------------------------------------------------------

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

void ExpectSound(const World& world, bool exact) {
  ASSERT_NO_FATAL_FAILURE(ExpectMessagesMatch(world));
  ASSERT_NO_FATAL_FAILURE(ExpectPiecesAreWellFormed(world));
  ASSERT_NO_FATAL_FAILURE(PlayForward(world, exact));
  ASSERT_NO_FATAL_FAILURE(PlayBackward(world));
}

// --- Tests
// ------------------------------------------------------------------------------------------------------------

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
