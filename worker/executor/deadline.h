// The executor's end of the lease: a thread that never waits on a device ends the process when it passes.
#ifndef SEQPAR_WORKER_EXECUTOR_DEADLINE_H_
#define SEQPAR_WORKER_EXECUTOR_DEADLINE_H_

#include <cstdint>
#include <functional>
#include <thread>

#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace seqpar {

// Calls `on_passed` once, in its own thread, within 100 ms after the deadline (CLOCK_BOOTTIME) has passed.
// Extend from any thread.
class DeadlineWatch {
 public:
  DeadlineWatch(const Clock* clock, int64_t deadline_us, std::function<void()> on_passed);
  ~DeadlineWatch();
  // An earlier deadline than the present one is ignored.
  void Extend(int64_t deadline_us);

 private:
  void Run();

  const Clock* const clock_;
  const std::function<void()> on_passed_;
  Mutex mutex_;
  ConditionVariable changed_;
  int64_t deadline_us_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: uses all of the above
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_DEADLINE_H_
