// The tiles of a KvSchedule: everything about the calls of attention's kernels that is known before the data
// is.
#ifndef SEQPAR_COMMON_ATTENTION_SCHEDULED_TILES_H_
#define SEQPAR_COMMON_ATTENTION_SCHEDULED_TILES_H_

#include <vector>

#include "common/attention/core.h"
#include "common/comm/communicator.h"
#include "common/parallel/kv_schedule.h"

namespace seqpar {

struct PlannedTile {
  AttentionTile tile;      // its matrices have their types, shapes and strides, and no data
  bool at_home = false;    // keys lie in the rank's own K/V, else in the receive buffer
  int64_t first_key = 0;   // there, in keys
  int64_t first_grad = 0;  // in the rank's own dK/dV or in the gradient buffer, in keys
};

// By slot, in the order in which they run. A tile of both passes has the same key ranges in both, as one
// value: devices keep what they make of ranges by their address.
struct PlannedTiles {
  std::vector<std::vector<PlannedTile>> forward, backward;
  const std::vector<std::vector<PlannedTile>>& Of(Pass pass) const {
    return pass == Pass::kForward ? forward : backward;
  }
};

// Of rank schedule.rank, which holds `tokens`. `mask` must outlive them.
PlannedTiles PlanTiles(const AttentionShape& shape, const HeadRange& heads, const TokenShare& tokens,
                       const Mask& mask, const KvSchedule& schedule);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_ATTENTION_SCHEDULED_TILES_H_
