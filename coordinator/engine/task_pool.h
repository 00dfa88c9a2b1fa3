// Threads for work that waits: files, planning, answers to clients.
#ifndef SEQPAR_COORDINATOR_ENGINE_TASK_POOL_H_
#define SEQPAR_COORDINATOR_ENGINE_TASK_POOL_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace seqpar {

// Runs tasks in the order in which they came, `threads` at a time. Thread-safe.
class TaskPool {
 public:
  explicit TaskPool(int threads);
  ~TaskPool() { Drain(); }
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // False, and nothing happens, once Drain was called.
  bool Run(std::function<void()> task);
  // Runs what is queued and joins the threads.
  void Drain();

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool draining_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_TASK_POOL_H_
