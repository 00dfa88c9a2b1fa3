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
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void DeadlineWatch::Extend(int64_t deadline_us) {
  std::lock_guard<std::mutex> lock(mutex_);
  deadline_us_ = std::max(deadline_us_, deadline_us);
}

void DeadlineWatch::Run() {
  // A condition variable's clock stops while the machine sleeps, the lease does not: look at least this
  // often.
  constexpr int64_t kLookUs = 100'000;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    const int64_t left_us = deadline_us_ - clock_->BootMicros();
    if (left_us <= 0) {
      lock.unlock();
      on_passed_();
      return;
    }
    changed_.wait_for(lock, std::chrono::microseconds(std::min(left_us, kLookUs)));
  }
}

}  // namespace seqpar
