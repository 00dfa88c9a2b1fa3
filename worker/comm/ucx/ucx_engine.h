// The endpoint over UCX: who drives UCX's worker, and how it waits.
#ifndef SEQPAR_WORKER_COMM_UCX_UCX_ENGINE_H_
#define SEQPAR_WORKER_COMM_UCX_UCX_ENGINE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/comm/exchange_communicator.h"
#include "worker/comm/ucx/peer_address.h"
#include "worker/comm/ucx/ucx_context.h"

namespace seqpar {

// A sender's rank has 16 bits of the tag.
inline constexpr size_t kUcxWorldSizeMax = size_t{1} << 16;

// REQUIRES: `context` is connected to `peers`, which are indexed by world rank. An error where the process is
// out of descriptors.
absl::StatusOr<std::shared_ptr<Endpoint>> MakeUcxEndpoint(std::shared_ptr<UcxContext> context, int world_rank,
                                                          const std::vector<PeerAddress>& peers);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_UCX_UCX_ENGINE_H_
