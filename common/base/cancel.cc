#include "common/base/cancel.h"

#include <utility>

#include "common/base/check.h"

namespace seqpar {

void CancelToken::Cancel(const absl::Status& why) {
  SEQPAR_CHECK(!why.ok());
  std::vector<std::function<void(const absl::Status&)>> callbacks;
  {
    MutexLock lock(mutex_);
    if (cancelled_.load(std::memory_order_relaxed)) return;
    why_ = why;
    callbacks.swap(callbacks_);
    cancelled_.store(true, std::memory_order_release);
  }
  // Outside the lock, so that a callback that blocks does not keep others from asking for the status.
  for (const auto& callback : callbacks) callback(why);
}

absl::Status CancelToken::status() const {
  if (!cancelled()) return absl::OkStatus();
  MutexLock lock(mutex_);
  return why_;
}

void CancelToken::OnCancel(std::function<void(const absl::Status&)> callback) {
  absl::Status why;
  {
    MutexLock lock(mutex_);
    if (!cancelled_.load(std::memory_order_relaxed)) {
      callbacks_.push_back(std::move(callback));
      return;
    }
    why = why_;
  }
  callback(why);
}

}  // namespace seqpar
