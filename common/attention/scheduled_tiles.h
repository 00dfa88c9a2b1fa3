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

// Of a pass of rank schedule.rank, which holds `tokens`: a vector a slot, in the order in which they run.
// `mask` must outlive them.
std::vector<std::vector<PlannedTile>> PlanTiles(const AttentionShape& shape, const HeadRange& heads,
                                                const TokenShare& tokens, const Mask& mask,
                                                const KvSchedule& schedule, Pass pass);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_ATTENTION_SCHEDULED_TILES_H_
