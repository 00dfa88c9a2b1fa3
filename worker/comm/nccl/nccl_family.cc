#include "worker/comm/nccl/nccl_family.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr auto kSpin = std::chrono::microseconds(200);
constexpr auto kSleep = std::chrono::microseconds(100);
// Leaving a communicator waits for its peers: not for long.
constexpr std::chrono::milliseconds kDestroyDeadline{2'000};

}  // namespace

void NcclFamily::Abort(const absl::Status& why) {
  SEQPAR_CHECK(!why.ok());
  MutexLock lock(mutex_);
  if (aborted_.ok()) aborted_ = why;
  asked_ = true;
}

absl::Status NcclFamily::aborted() const {
  MutexLock lock(mutex_);
  return aborted_;
}

absl::Status NcclFamily::Check() {
  if (!asked_) {
    for (ncclComm_t comm : comms_) {
      ncclResult_t state = ncclSuccess;
      nccl_->comm_get_async_error(comm, &state);
      if (absl::Status status = nccl_->ToStatus(state, "in the background"); !status.ok()) {
        Abort(status);
        break;
      }
    }
  }
  if (!asked_) return absl::OkStatus();
  TakeDown();
  return aborted();
}

void NcclFamily::TakeDown() {
  if (down_) return;
  down_ = true;
  // Children first; with shared resources one abort frees the kernels of the whole family.
  for (auto comm = comms_.rbegin(); comm != comms_.rend(); ++comm) nccl_->comm_abort(*comm);
  comms_.clear();
}

absl::Status NcclFamily::Settle(ncclComm_t comm, ncclResult_t result, const char* what) {
  const auto start = std::chrono::steady_clock::now();
  // A call that answers "success" may still be at work in the background: only the communicator's own state
  // tells.
  if (result == ncclSuccess && nccl_->comm_get_async_error(comm, &result) != ncclSuccess)
    result = ncclInternalError;
  while (result == ncclInProgress) {
    if (asked_) return Check();
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited > deadline_) {
      Abort(MakeError(absl::StatusCode::kDeadlineExceeded, reason::kBootstrapTimeout,
                      absl::StrCat("NCCL: ", what, ": not finished after ", deadline_.count(), " ms")));
      return Check();
    }
    if (waited > kSpin) std::this_thread::sleep_for(kSleep);
    if (nccl_->comm_get_async_error(comm, &result) != ncclSuccess) break;
  }
  absl::Status status = nccl_->ToStatus(result, what);
  if (status.ok()) return status;
  Abort(status);
  return Check();
}

void NcclFamily::Destroy(ncclComm_t comm) {
  const auto found = std::find(comms_.begin(), comms_.end(), comm);
  if (found == comms_.end()) return;  // taken down
  comms_.erase(found);
  const auto start = std::chrono::steady_clock::now();
  ncclResult_t state = nccl_->comm_finalize(comm);
  while (state == ncclInProgress && std::chrono::steady_clock::now() - start < kDestroyDeadline) {
    std::this_thread::sleep_for(kSleep);
    if (nccl_->comm_get_async_error(comm, &state) != ncclSuccess) break;
  }
  if (state == ncclSuccess) {
    nccl_->comm_destroy(comm);
  } else {
    nccl_->comm_abort(comm);
  }
}

}  // namespace seqpar
