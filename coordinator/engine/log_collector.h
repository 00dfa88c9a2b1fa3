// Gathers what nodes answer to one query for logs: each about the ranks that it held.
#ifndef SEQPAR_COORDINATOR_ENGINE_LOG_COLLECTOR_H_
#define SEQPAR_COORDINATOR_ENGINE_LOG_COLLECTOR_H_

#include <chrono>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/base/mutex.h"
#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/job.pb.h"
#include "seqpar/v1/service.pb.h"

namespace seqpar {

// The node of each rank, by attempt.
using RankHolders = std::map<int, std::vector<std::string>>;

inline RankHolders HoldersOf(const v1::Job& job) {
  RankHolders holders;
  for (const v1::AttemptInfo& attempt : job.attempts()) {
    std::vector<std::string>& nodes = holders[attempt.attempt()];
    for (const std::string& device : attempt.devices()) nodes.push_back(device.substr(0, device.rfind('/')));
  }
  return holders;
}

// Thread-safe.
class LogCollector {
 public:
  explicit LogCollector(RankHolders holders) : holders_(std::move(holders)) {}

  void Expect(const std::string& node) {
    MutexLock lock(mutex_);
    waiting_.insert(node);
  }

  // False, and nothing is taken, where another node held the rank. What is about an attempt that began after
  // the question is left out.
  bool Add(const std::string& node, const v1::LogsAnswer& answer) {
    const auto attempt = holders_.find(answer.attempt());
    if (attempt != holders_.end()) {
      const std::vector<std::string>& nodes = attempt->second;
      const bool is_rank = answer.rank() >= 0 && answer.rank() < static_cast<int>(nodes.size());
      if (!is_rank || nodes[answer.rank()] != node) return false;
    }
    MutexLock lock(mutex_);
    if (attempt != holders_.end()) {
      v1::RankLog& log = logs_[{answer.attempt(), answer.rank(), answer.device()}];
      log.set_attempt(answer.attempt());
      log.set_rank(answer.rank());
      log.set_device(answer.device());
      log.mutable_text()->append(answer.text());
    }
    if (answer.last()) waiting_.erase(node);
    if (waiting_.empty()) done_.notify_all();
    return true;
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
  const RankHolders holders_;
  Mutex mutex_;
  ConditionVariable done_;
  std::set<std::string> waiting_ ABSL_GUARDED_BY(mutex_);
  std::map<std::tuple<int, int, std::string>, v1::RankLog> logs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_LOG_COLLECTOR_H_
