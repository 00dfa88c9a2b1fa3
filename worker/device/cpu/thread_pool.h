// Data parallelism inside one kernel.
#ifndef SEQPAR_WORKER_DEVICE_CPU_THREAD_POOL_H_
#define SEQPAR_WORKER_DEVICE_CPU_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "common/base/mutex.h"

namespace seqpar {

// `threads` participants: the caller and threads - 1 threads of the pool.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Tasks that have ended, of all calls so far. From any thread.
  int64_t tasks_done() const { return tasks_done_.load(std::memory_order_relaxed); }

  // Runs body(task, participant) for every task in [0, tasks) and returns when all are done. Participants are
  // numbered from 0 below threads(); no two run at once under one number in one call, so each may have
  // scratch of its own. Tasks are taken in ascending order by whoever is free: results must not depend on who
  // runs what. While another thread is inside ParallelFor, the caller runs all of its tasks alone, as
  // participant 0. Not reentrant.
  using Body = std::function<void(int64_t task, int participant)>;
  void ParallelFor(int64_t tasks, const Body& body);

 private:
  void RunWorker(int participant);
  void TakeTasks(const Body& body, int64_t tasks, int participant);

  Mutex callers_;  // held by the one caller that has the workers
  Mutex mutex_;
  ConditionVariable work_;
  ConditionVariable done_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t call_ ABSL_GUARDED_BY(mutex_) = 0;  // counts ParallelFor calls: a worker takes part once in each
  int busy_ ABSL_GUARDED_BY(mutex_) = 0;      // workers that have not finished their part in this call
  const Body* body_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int64_t tasks_ ABSL_GUARDED_BY(mutex_) = 0;

  std::atomic<int64_t> next_{0};
  std::atomic<int64_t> tasks_done_{0};
  std::vector<std::thread> workers_;
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_DEVICE_CPU_THREAD_POOL_H_
