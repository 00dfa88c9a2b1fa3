#include "worker/device/cpu/thread_pool.h"

#include <pthread.h>

namespace seqpar {

ThreadPool::ThreadPool(int threads) {
  for (int participant = 1; participant < threads; ++participant) {
    workers_.emplace_back([this, participant] { RunWorker(participant); });
    pthread_setname_np(workers_.back().native_handle(), "seqpar-compute");
  }
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    closing_ = true;
  }
  work_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int64_t tasks, const Body& body) {
  if (tasks <= 1 || workers_.empty() || !callers_.try_lock()) {
    for (int64_t task = 0; task < tasks; ++task) {
      body(task, 0);
      tasks_done_.fetch_add(1, std::memory_order_relaxed);
    }
    return;
  }
  MutexLock sole_caller(callers_, std::adopt_lock);
  {
    MutexLock lock(mutex_);
    body_ = &body;
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    busy_ = static_cast<int>(workers_.size());
    ++call_;
  }
  work_.notify_all();
  TakeTasks(body, tasks, 0);
  MutexLock lock(mutex_);
  while (busy_ > 0) done_.wait(mutex_);
}

void ThreadPool::RunWorker(int participant) {
  int64_t last_call = 0;
  for (;;) {
    const Body* body;
    int64_t tasks;
    {
      MutexLock lock(mutex_);
      while (!closing_ && call_ == last_call) work_.wait(mutex_);
      if (closing_) return;
      last_call = call_;
      body = body_;
      tasks = tasks_;
    }
    TakeTasks(*body, tasks, participant);
    MutexLock lock(mutex_);
    if (--busy_ == 0) done_.notify_one();
  }
}

void ThreadPool::TakeTasks(const Body& body, int64_t tasks, int participant) {
  for (;;) {
    const int64_t task = next_.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks) return;
    body(task, participant);
    tasks_done_.fetch_add(1, std::memory_order_relaxed);
  }
}

}  // namespace seqpar
