// Times as they are seen, and what is told of them.
#ifndef SEQPAR_TESTS_BENCH_LOAD_STATS_H_
#define SEQPAR_TESTS_BENCH_LOAD_STATS_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "common/base/mutex.h"

namespace seqpar::load {

using SteadyClock = std::chrono::steady_clock;
using TimePoint = SteadyClock::time_point;

inline double SecondsSince(TimePoint begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

struct Quantiles {
  int64_t count = 0;
  double p50 = 0, p99 = 0, max = 0;  // seconds
};

// Thread-safe. Keeps every value: a load of ten minutes has less than a million.
class Times {
 public:
  void Add(double seconds) {
    MutexLock lock(mutex_);
    seconds_.push_back(seconds);
  }
  // Forgets what was seen so far.
  void Clear() {
    MutexLock lock(mutex_);
    seconds_.clear();
  }
  Quantiles Get() const {
    std::vector<double> sorted;
    {
      MutexLock lock(mutex_);
      sorted = seconds_;
    }
    std::sort(sorted.begin(), sorted.end());
    Quantiles q;
    q.count = static_cast<int64_t>(sorted.size());
    if (sorted.empty()) return q;
    q.p50 = sorted[sorted.size() / 2];
    q.p99 = sorted[std::min(sorted.size() - 1, sorted.size() * 99 / 100)];
    q.max = sorted.back();
    return q;
  }

 private:
  mutable Mutex mutex_;
  std::vector<double> seconds_ ABSL_GUARDED_BY(mutex_);
};

// Counts objects that others delete, such as the reactors of calls. Thread-safe.
class Outstanding {
 public:
  // The first member of what is counted: it goes last.
  class Token {
   public:
    explicit Token(Outstanding* all) : all_(all) { all_->Add(1); }
    ~Token() { all_->Add(-1); }
    Token(const Token&) = delete;
    Token& operator=(const Token&) = delete;

   private:
    Outstanding* const all_;
  };

  void WaitForNone() {
    MutexLock lock(mutex_);
    while (count_ > 0) changed_.wait(mutex_);
  }

 private:
  void Add(int change) {
    MutexLock lock(mutex_);
    count_ += change;
    changed_.notify_all();
  }

  Mutex mutex_;
  ConditionVariable changed_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace seqpar::load

#endif  // SEQPAR_TESTS_BENCH_LOAD_STATS_H_
