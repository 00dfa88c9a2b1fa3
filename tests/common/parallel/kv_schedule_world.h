// Plays the schedules of all ranks against each other, slot by slot, in a world where a key is its position
// and a gradient is the set of ranks that contributed to it. The world is as hostile as the contract allows:
// what a slot's exchange will overwrite is garbage from the beginning of the slot.
#ifndef SEQPAR_TESTS_COMMON_PARALLEL_KV_SCHEDULE_WORLD_H_
#define SEQPAR_TESTS_COMMON_PARALLEL_KV_SCHEDULE_WORLD_H_

#include <cstdint>
#include <vector>

#include "common/parallel/kv_schedule.h"

namespace seqpar {

struct World {
  std::vector<TokenShare> shares;
  Mask mask;
  std::vector<KvSchedule> schedules;
  // needs[rank][key position]: a query of the rank attends the key. From the definition of a mask alone.
  std::vector<std::vector<bool>> needs;

  int ranks() const { return static_cast<int>(shares.size()); }
  int slots() const { return static_cast<int>(schedules[0].slots.size()); }
};

World MakeRing(LayoutKind layout, const Mask& mask, int ranks, int inner);
World MakeGather(LayoutKind layout, const Mask& mask, int ranks);

std::vector<int64_t> PositionsOf(const TokenShare& share);
bool NeedsAny(const World& world, int rank, const std::vector<int64_t>& keys);

// Fatal gtest failures unless: both ends of every message agree; every piece is in its place when it is sent
// or worked on and never overwritten before; every rank works on each key that it attends exactly once (with
// `exact`, on no other); every contribution to a gradient reaches home exactly once.
void ExpectSound(const World& world, bool exact);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_COMMON_PARALLEL_KV_SCHEDULE_WORLD_H_
