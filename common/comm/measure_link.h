// The rates of the links of a group, measured over its own transport.
#ifndef SEQPAR_COMMON_COMM_MEASURE_LINK_H_
#define SEQPAR_COMMON_COMM_MEASURE_LINK_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "common/comm/communicator.h"
#include "common/device/device.h"

namespace seqpar {

struct MeasuredLink {
  double latency = 0;    // seconds
  double bandwidth = 0;  // bytes/s, each direction
};

// What measuring may take. By default what links of one node need.
struct LinkEffort {
  int64_t from_bytes = int64_t{4} << 20, to_bytes = int64_t{256} << 20;  // of the large messages
  // About, of all ranks together; 0: as long as it takes. A link that is slow is measured by fewer messages.
  double seconds = 0;
};

// Called by every rank of `group` at once, with nothing outstanding; each sends to the next rank and receives
// from the one before. Latency: of an exchange of 8 bytes as layers make them, from one operation on the
// compute stream to the next, over the communication stream. Bandwidth: payload that a rank sends while it
// receives as much, as all others do, in messages of `from_bytes` to `to_bytes`, the larger the faster the
// link. Lower quartiles of repetitions, their mean over the ranks: all ranks get the same. About 0.2 s on a
// fast link. REQUIRES: group.size() > 1; memory for two messages; the same effort on every rank.
absl::StatusOr<MeasuredLink> MeasureLink(Device& device, Communicator& group, Stream& compute, Stream& comm,
                                         const LinkEffort& effort = LinkEffort());

}  // namespace seqpar

#endif  // SEQPAR_COMMON_COMM_MEASURE_LINK_H_
