// Threads for work that waits: files, planning, answers to clients.
#ifndef SEQPAR_COORDINATOR_ENGINE_TASK_POOL_H_
#define SEQPAR_COORDINATOR_ENGINE_TASK_POOL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "common/base/mutex.h"

namespace seqpar {

// Runs tasks in the order in which they came, `threads` at a time. Thread-safe.
class TaskPool {
 public:
  // `queue_max`: from so many waiting tasks on it is full.
  explicit TaskPool(int threads, size_t queue_max = SIZE_MAX);
  ~TaskPool() { Drain(); }
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // False, and nothing happens, once Drain was called.
  bool Run(std::function<void()> task);
  // A hint for those who may say no: Run takes tasks all the same.
  bool full();
  // Runs what is queued and joins the threads.
  void Drain();

 private:
  void Loop();

  const size_t queue_max_;
  Mutex mutex_;
  ConditionVariable wake_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_TASK_POOL_H_
