// Communicators over NCCL. Every collective is made of grouped sends and receives, so that counts may be
// uneven and sums are in rank order, with the same bits on every rank and every run.
//
// NCCL is used as it wants to be: communicators do not block, one thread makes every call (the one that
// enqueues and synchronises), calls are polled until they are no longer in progress before the next, all
// groups are split from one communicator with shared resources, and one abort ends them all.
#ifndef SEQPAR_WORKER_COMM_NCCL_NCCL_COMMUNICATOR_H_
#define SEQPAR_WORKER_COMM_NCCL_NCCL_COMMUNICATOR_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/comm/communicator.h"
#include "worker/comm/nccl/nccl_library.h"

namespace seqpar {

// A rank's part of the bootstrap: library version, host and, from rank 0, the unique id of the attempt. NCCL
// listens in the process that makes the id, from then on. Bytes, not text.
absl::StatusOr<std::string> NcclBlob(const NcclLibrary& nccl, int rank);

struct NcclConfig {
  int rank = 0;
  int ordinal = 0;                             // of the GPU
  std::vector<std::string> blobs;              // by rank, the own included
  std::chrono::milliseconds deadline{30'000};  // for joining and for each split
};

// The world over CUDA streams of `device`, which outlives it and its splits. `traffic` may be null. Blocks
// until all ranks have joined. FAILED_PRECONDITION (BOOTSTRAP_MISMATCH) names the rank whose blob is
// malformed or of another version; DEADLINE_EXCEEDED (BOOTSTRAP_TIMEOUT) where the others do not come.
absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclWorld(const NcclLibrary* nccl, const NcclConfig& config,
                                                            Device* device, TrafficCounter* traffic);

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_NCCL_NCCL_COMMUNICATOR_H_
