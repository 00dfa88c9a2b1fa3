// The one loop that executes any KvSchedule: local, ring, double ring and gather attention differ in data
// only.
//
// Nomenclature as in common/parallel/kv_schedule.h. Slot s, forward:
//   comm     waits until compute has finished slot s - 1, then exchanges the K/V of slot s
//   compute  the tiles of slot s (their keys are at home or came in an earlier slot), then waits for the
//   exchange
// Backward is the same loop with dK/dV besides, and with the tiles of late home keys in the last slot: a tile
// adds to a zeroed float32 sum of its piece; what had come for the piece by the end of the slot's exchange is
// added to it (what comes home: to the rank's own dK/dV, in the order of the schedule); the next slot sends
// it on. So the exchange of a slot runs beside its tiles, and nothing is sent before it is complete.
//
// Numbers: out, dq, dK and dV are float32 while they are partial, whatever the storage type, and rounded once
// at the end. K and V of a token lie side by side in one row, so that a range of tokens is one block of
// memory.
#ifndef SEQPAR_COMMON_ATTENTION_SCHEDULED_ATTENTION_H_
#define SEQPAR_COMMON_ATTENTION_SCHEDULED_ATTENTION_H_

#include <memory>
#include <vector>

#include "common/attention/core.h"
#include "common/parallel/kv_schedule.h"

namespace seqpar {

// The core of rank schedule.rank of `group` (null where the schedule has one rank). `shares`: one a ring
// rank; `heads` are the same on every rank of the group. Traffic is counted under `operation`.
//
// Received K/V and sums are in the calls' scratch; kept K/V (schedule.kv_kept) belong to the state.
std::unique_ptr<AttentionCore> MakeScheduledAttention(const RankStreams& streams, Communicator* group,
                                                      const AttentionShape& shape, const HeadRange& heads,
                                                      std::vector<TokenShare> shares, const Mask& mask,
                                                      KvSchedule schedule, Operation operation);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_ATTENTION_SCHEDULED_ATTENTION_H_
