// What users do meanwhile: they submit, list, and watch, and some of those who watch never read.
#ifndef SEQPAR_TESTS_BENCH_LOAD_CLIENTS_H_
#define SEQPAR_TESTS_BENCH_LOAD_CLIENTS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "seqpar/v1/service.pb.h"
#include "tests/bench/load/stats.h"

namespace grpc {
class Channel;
}

namespace seqpar::load {

struct ClientOptions {
  std::string server;
  int ranks = 64;       // of a job
  double submits = 2;   // a second
  double lists = 5;     // a second, pages of 50
  int watchers = 2000;  // streams, 50 on a connection
  int silent = 200;     // of these, which never read
};

// A forward pass of `ranks` ranks; `striped` lays 4M tokens out in stripes over a ring of all of them.
v1::Job SampleJob(int ranks, bool striped);

// Thread-safe.
class Clients {
 public:
  explicit Clients(const ClientOptions& options);
  ~Clients();

  // Submits as fast as `threads` can; how many were refused or failed. The ids are those that are watched.
  int64_t Fill(int jobs, int threads);
  // Empty where it was refused.
  std::string Submit(const v1::Job& job);
  // Opens the watchers on what was submitted.
  void Watch();
  // Submits and lists at their rates from now on, until it is destroyed; what is asked while `expected` is
  // false does not count.
  void Begin();
  void SetExpected(bool expected) { expected_ = expected; }

  Times& submits() { return submits_; }
  Times& lists() { return lists_; }
  int64_t errors() const { return errors_; }
  int64_t events() const { return events_; }      // that watchers have read
  int64_t watching() const { return watching_; }  // streams that are open
  std::string last_error() const;

 private:
  class WatchStream;
  void SubmitLoop();
  void ListLoop();
  void OpenWatch(int watcher) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Failed(const std::string& what);
  // False: it is time to end.
  bool Pause(double seconds);

  const ClientOptions options_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;  // the first for calls, the others for watchers
  Times submits_, lists_;
  std::atomic<int64_t> errors_{0}, events_{0}, watching_{0};
  std::atomic<bool> expected_{true};
  mutable Mutex mutex_;
  ConditionVariable changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::string> ids_ ABSL_GUARDED_BY(mutex_);
  size_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string last_error_ ABSL_GUARDED_BY(mutex_);
  std::vector<WatchStream*> streams_ ABSL_GUARDED_BY(mutex_);  // by watcher; null: it is over
  Outstanding outstanding_;
  std::vector<std::thread> threads_;
};

}  // namespace seqpar::load

#endif  // SEQPAR_TESTS_BENCH_LOAD_CLIENTS_H_
