#include "worker/executor/deadline.h"

#include <algorithm>
#include <chrono>

namespace seqpar {

DeadlineWatch::DeadlineWatch(const Clock* clock, int64_t deadline_us, std::function<void()> on_passed)
    : clock_(clock),
      on_passed_(std::move(on_passed)),
      deadline_us_(deadline_us),
      thread_([this] { Run(); }) {}

DeadlineWatch::~DeadlineWatch() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void DeadlineWatch::Extend(int64_t deadline_us) {
  MutexLock lock(mutex_);
  deadline_us_ = std::max(deadline_us_, deadline_us);
}

void DeadlineWatch::Run() {
  // A condition variable's clock stops while the machine sleeps, the lease does not: look at least this
  // often.
  constexpr int64_t kLookUs = 100'000;
  {
    MutexLock lock(mutex_);
    while (true) {
      if (stopping_) return;
      const int64_t left_us = deadline_us_ - clock_->BootMicros();
      if (left_us <= 0) break;
      changed_.wait_until(
          mutex_, std::chrono::steady_clock::now() + std::chrono::microseconds(std::min(left_us, kLookUs)));
    }
  }
  on_passed_();
}

}  // namespace seqpar
