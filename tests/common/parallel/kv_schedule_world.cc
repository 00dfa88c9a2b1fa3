#include "tests/common/parallel/kv_schedule_world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

namespace seqpar {

std::vector<int64_t> PositionsOf(const TokenShare& share) {
  std::vector<int64_t> positions;
  for (const Segment& segment : share.segments()) {
    for (int64_t i = 0; i < segment.size(); ++i) positions.push_back(segment.PositionAt(i));
  }
  return positions;
}

namespace {

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

}  // namespace

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

namespace {

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

// Of the rank's own keys those before schedule.late_keys in slot 0, the others in the last.
void WorkAtHome(const KvSchedule& schedule, const KvPiece& piece, bool late, GradWorld& grads) {
  const std::vector<Grad> part = OwnPart(piece, schedule.rank);
  size_t at = 0;
  for (const IndexRange& range : piece.ranges) {
    for (int64_t i = range.begin; i < range.end; ++i, ++at) {
      if ((i >= schedule.late_keys) != late) continue;
      ASSERT_NO_FATAL_FAILURE(AddInto(grads.home[part[at].key], part[at]));
    }
  }
}

void Work(const World& world, int slot, GradWorld& grads) {
  for (int r = 0; r < world.ranks(); ++r) {
    const KvSchedule& schedule = world.schedules[r];
    for (int index : schedule.slots[slot].work) {
      const KvPiece& piece = schedule.pieces[index];
      if (piece.home == r) {
        ASSERT_NO_FATAL_FAILURE(WorkAtHome(schedule, piece, false, grads));
      } else {
        const std::vector<Grad> part = OwnPart(piece, r);
        std::copy(part.begin(), part.end(), grads.sums[r].begin() + piece.grad_offset);
      }
    }
    if (slot + 1 < world.slots()) continue;
    for (int index : schedule.slots[0].work) {
      ASSERT_NO_FATAL_FAILURE(WorkAtHome(schedule, schedule.pieces[index], true, grads));
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

}  // namespace

void ExpectSound(const World& world, bool exact) {
  ASSERT_NO_FATAL_FAILURE(ExpectMessagesMatch(world));
  ASSERT_NO_FATAL_FAILURE(ExpectPiecesAreWellFormed(world));
  ASSERT_NO_FATAL_FAILURE(PlayForward(world, exact));
  ASSERT_NO_FATAL_FAILURE(PlayBackward(world));
}

}  // namespace seqpar
