// Gathers what nodes answer to one query for logs. Thread-safe.
#ifndef SEQPAR_COORDINATOR_ENGINE_LOG_COLLECTOR_H_
#define SEQPAR_COORDINATOR_ENGINE_LOG_COLLECTOR_H_

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "common/base/mutex.h"
#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/service.pb.h"

namespace seqpar {

class LogCollector {
 public:
  void Expect(const std::string& node) {
    MutexLock lock(mutex_);
    waiting_.insert(node);
  }

  void Add(const std::string& node, const v1::LogsAnswer& answer) {
    MutexLock lock(mutex_);
    if (answer.attempt() > 0) {
      v1::RankLog& log = logs_[{answer.attempt(), answer.rank(), answer.device()}];
      log.set_attempt(answer.attempt());
      log.set_rank(answer.rank());
      log.set_device(answer.device());
      log.mutable_text()->append(answer.text());
    }
    if (answer.last()) waiting_.erase(node);
    if (waiting_.empty()) done_.notify_all();
  }

  // Nothing more comes from `node`.
  void GiveUp(const std::string& node) {
    MutexLock lock(mutex_);
    waiting_.erase(node);
    if (waiting_.empty()) done_.notify_all();
  }

  // What has come once every node has answered, or after `timeout`; by attempt, then rank.
  v1::GetJobLogsResponse Wait(std::chrono::milliseconds timeout) {
    MutexLock lock(mutex_);
    const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return waiting_.empty(); };
    done_.wait_for(mutex_, timeout, done);
    v1::GetJobLogsResponse response;
    for (const auto& [key, log] : logs_) *response.add_logs() = log;
    return response;
  }

 private:
  Mutex mutex_;
  ConditionVariable done_;
  std::set<std::string> waiting_ ABSL_GUARDED_BY(mutex_);
  std::map<std::tuple<int, int, std::string>, v1::RankLog> logs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_LOG_COLLECTOR_H_
