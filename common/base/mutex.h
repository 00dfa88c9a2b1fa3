// std::mutex and std::condition_variable under names that clang's thread-safety analysis can check: what is
// ABSL_GUARDED_BY a mutex may be touched only while it is held, and `scripts/test --tidy` refuses anything
// else. The standard library's own carry no annotations; absl::Mutex measures its timeouts on the wall clock,
// which may jump, and ThreadSanitizer sees it only in an Abseil of its own build.
#ifndef SEQPAR_COMMON_BASE_MUTEX_H_
#define SEQPAR_COMMON_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "absl/base/thread_annotations.h"

namespace seqpar {

class ABSL_LOCKABLE Mutex {
 public:
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  bool try_lock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) { return mutex_.try_lock(); }
  void unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  friend class ConditionVariable;
  std::mutex mutex_;
};

// Holds a mutex as long as it lives. Between may lie unlock() and lock() of the mutex itself, in this order.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) { mutex_.lock(); }
  // Takes over a mutex that the caller holds.
  MutexLock(Mutex& mutex, std::adopt_lock_t) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) : mutex_(mutex) {}
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Every wait opens the mutex, which the caller holds, while it sleeps, and may end for no reason. A `done`
// runs with the mutex held; the analysis looks at a lambda by itself and must be told so:
//   changed_.wait_for(mutex_, timeout, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return done_; })
class ConditionVariable {
 public:
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

  void wait(Mutex& mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Held held(mutex);
    condition_.wait(held.lock);
  }
  void wait_until(Mutex& mutex, std::chrono::steady_clock::time_point end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Held held(mutex);
    condition_.wait_until(held.lock, end);
  }
  // What done() says at the end: false after `timeout` in vain.
  template <typename Rep, typename Period, typename Done>
  bool wait_for(Mutex& mutex, std::chrono::duration<Rep, Period> timeout, const Done& done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Held held(mutex);
    return condition_.wait_for(held.lock, timeout, done);
  }

 private:
  // Lends the standard condition variable the lock that it asks for.
  struct Held {
    explicit Held(Mutex& mutex) : lock(mutex.mutex_, std::adopt_lock) {}
    ~Held() { lock.release(); }
    std::unique_lock<std::mutex> lock;
  };

  std::condition_variable condition_;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_MUTEX_H_
