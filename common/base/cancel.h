// A flag that any thread may raise once, with a reason, and that blocked calls watch.
#ifndef SEQPAR_COMMON_BASE_CANCEL_H_
#define SEQPAR_COMMON_BASE_CANCEL_H_

#include <atomic>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "common/base/mutex.h"

namespace seqpar {

// Thread-safe. The first Cancel wins; callbacks registered before it run in the cancelling thread, those
// registered after it run at once. Callbacks must not call back into the token.
class CancelToken {
 public:
  void Cancel(const absl::Status& why);
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }
  // OK until cancelled, then the status given to the first Cancel.
  absl::Status status() const;
  void OnCancel(std::function<void(const absl::Status&)> callback);

 private:
  std::atomic<bool> cancelled_{false};
  mutable Mutex mutex_;
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::function<void(const absl::Status&)>> callbacks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_CANCEL_H_
