// The first phase: device, transport, and the groups of the mesh.
#ifndef SEQPAR_WORKER_EXECUTOR_BOOTSTRAP_H_
#define SEQPAR_WORKER_EXECUTOR_BOOTSTRAP_H_

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/attention/core.h"
#include "common/comm/communicator.h"
#include "common/device/device.h"
#include "common/job/plan.h"
#include "common/layers/rank_groups.h"
#include "worker/backend/backend.h"
#include "worker/executor/rank_run.h"

namespace seqpar {

// What a rank runs on. Destroyed in reverse order: groups before streams, streams before the backend and its
// device.
struct RankRuntime {
  std::unique_ptr<RankBackend> backend;
  Device* device = nullptr;
  std::unique_ptr<Stream> compute, comm;
  std::unique_ptr<TrafficCounter> traffic;
  std::unique_ptr<Communicator> world;
  std::optional<RankGroups> groups;

  RankStreams streams() const { return {device, compute.get(), comm.get()}; }
  // Waits for both streams: the first failure of either.
  absl::Status Synchronize() const;
};

// Makes device, streams and transport of `config`, sends this rank's blob, waits for the table, and connects:
// everything of the runtime but groups. `links`: to each rank of the world. `meanwhile` (none: nothing) runs
// while the others come; its errors are returned. Errors as Bootstrap's.
absl::StatusOr<RankRuntime> ConnectWorld(const RankContext& context, const BackendConfig& config,
                                         std::vector<Link> links,
                                         const std::function<absl::Status(const RankRuntime&)>& meanwhile);

// The device that this rank was given.
BackendConfig BackendConfigOf(const v1::Run& run);

// Sends this rank's blob, waits for the table, connects, and splits the groups together with the other ranks.
// Errors carry reasons BOOTSTRAP_TIMEOUT, BOOTSTRAP_MISMATCH, PEER_LOST or OUT_OF_MEMORY.
absl::StatusOr<RankRuntime> Bootstrap(const RankContext& context, const JobSpec& job, const Plan& plan);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_BOOTSTRAP_H_
