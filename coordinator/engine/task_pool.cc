#include "coordinator/engine/task_pool.h"

#include <utility>

namespace seqpar {

TaskPool::TaskPool(int threads, size_t queue_max) : queue_max_(queue_max) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

bool TaskPool::Run(std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (draining_) return false;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
  return true;
}

bool TaskPool::full() {
  MutexLock lock(mutex_);
  return tasks_.size() >= queue_max_;
}

void TaskPool::Drain() {
  {
    MutexLock lock(mutex_);
    draining_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void TaskPool::Loop() {
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      while (!draining_ && tasks_.empty()) wake_.wait(mutex_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace seqpar
