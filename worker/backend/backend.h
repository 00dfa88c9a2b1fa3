// What a rank runs on: a device and the communicators that go with it, from one factory. CPU slots talk over
// UCX, GPUs over NCCL; nothing above this knows which.
#ifndef SEQPAR_WORKER_BACKEND_BACKEND_H_
#define SEQPAR_WORKER_BACKEND_BACKEND_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/comm/communicator.h"
#include "common/device/device.h"

namespace seqpar {

struct BackendConfig {
  std::string kind = "cpu";  // of the device, in common/device/device_models.h
  int ordinal = 0;           // cuda: which of the visible GPUs
  int threads = 1;           // cpu: of one kernel
  int64_t memory_bytes = 0;  // what the device may use; 0: no limit of ours
  bool deterministic =
      false;  // cuda: only kernels that give the same bits from run to run, as the CPU's all do
};

// One rank's device and transport, used from one thread. The device outlives the communicators, the backend
// both.
class RankBackend {
 public:
  virtual ~RankBackend() = default;
  virtual Device* device() = 0;
  // This rank's part of the bootstrap, to be handed to every rank of the world. Bytes, not text. Once a
  // backend.
  virtual absl::StatusOr<std::string> Blob(int rank) = 0;
  // The world, once every rank's blob is there; blobs by rank, the own included. Blocks up to `deadline`
  // where the transport joins at once. Errors: BOOTSTRAP_MISMATCH names the rank whose blob does not fit,
  // PEER_LOST one that is gone, BOOTSTRAP_TIMEOUT.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Connect(int rank,
                                                                const std::vector<std::string>& blobs,
                                                                std::chrono::milliseconds deadline,
                                                                TrafficCounter* traffic) = 0;
  // Library versions, settings and the transports picked: for logs, after Connect.
  virtual std::string Describe() const = 0;
};

// INVALID_ARGUMENT where there is no such kind; UNAVAILABLE, with what is missing and the version needed,
// where this machine cannot run it.
absl::StatusOr<std::unique_ptr<RankBackend>> MakeRankBackend(const BackendConfig& config);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_BACKEND_BACKEND_H_
