// What all NCCL communicators of one rank share: the library, the abort, and who may call.
#ifndef SEQPAR_WORKER_COMM_NCCL_NCCL_FAMILY_H_
#define SEQPAR_WORKER_COMM_NCCL_NCCL_FAMILY_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "common/comm/communicator.h"
#include "worker/comm/nccl/nccl_library.h"

namespace seqpar {

// All methods but Abort and aborted belong to the owner: the one thread that calls NCCL.
class NcclFamily {
 public:
  NcclFamily(const NcclLibrary* nccl, int ordinal, Device* device, TrafficCounter* traffic,
             std::chrono::milliseconds deadline)
      : nccl_(nccl), ordinal_(ordinal), device_(device), traffic_(traffic), deadline_(deadline) {}

  const NcclLibrary& nccl() const { return *nccl_; }
  int ordinal() const { return ordinal_; }
  Device* device() const { return device_; }
  TrafficCounter* traffic() const { return traffic_; }

  // From any thread: the first status stays. The owner takes the communicators down at its next call.
  void Abort(const absl::Status& why);
  absl::Status aborted() const;

  // Whether everything is well: an abort that was asked for, or an error that NCCL found on its own, takes
  // all communicators down and is returned from then on.
  absl::Status Check();
  // Waits until `comm` has finished what was asked of it. `what` is for errors; DEADLINE_EXCEEDED where it
  // takes longer than the family's deadline.
  absl::Status Settle(ncclComm_t comm, ncclResult_t result, const char* what);

  // Communicators are taken down in reverse order of their making.
  void Add(ncclComm_t comm) { comms_.push_back(comm); }
  // Whether they have been, or are about to be: what an operation does from then on means nothing. Any
  // thread.
  bool over() const { return asked_; }
  void Destroy(ncclComm_t comm);

 private:
  void TakeDown();

  const NcclLibrary* const nccl_;
  const int ordinal_;
  Device* const device_;
  TrafficCounter* const traffic_;
  const std::chrono::milliseconds deadline_;
  std::vector<ncclComm_t> comms_;
  bool down_ = false;
  std::atomic<bool> asked_{false};
  mutable Mutex mutex_;
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_COMM_NCCL_NCCL_FAMILY_H_
