// Who watches which job. One thread.
#ifndef SEQPAR_COORDINATOR_ENGINE_WATCHERS_H_
#define SEQPAR_COORDINATOR_ENGINE_WATCHERS_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "seqpar/v1/job.pb.h"

namespace seqpar {

// A stream of one job's states. Thread-safe; no call waits. A slow reader sees the latest state, not
// each one.
class Watcher {
 public:
  virtual ~Watcher() = default;
  virtual void Offer(const v1::Job& job) = 0;
  // Nothing more will be offered; what was is still delivered.
  virtual void End(const absl::Status& status) = 0;
  // Whether whoever opened it may still watch; else why not any more. Asked about once a second.
  virtual absl::Status Standing() const = 0;
};

class Watchers {
 public:
  void Add(const std::string& job, std::weak_ptr<Watcher> watcher) {
    std::vector<std::weak_ptr<Watcher>>& watchers = watchers_[job];
    // A job may wait for days without a word, while those who watch it come and go.
    std::erase_if(watchers, [](const std::weak_ptr<Watcher>& weak) { return weak.expired(); });
    watchers.push_back(std::move(watcher));
  }
  bool Any(const std::string& job) const { return watchers_.count(job) != 0; }

  // Offers `job` to those who watch it; where it has ended, ends their streams.
  void Publish(const v1::Job& job, bool ended) {
    const auto found = watchers_.find(job.id());
    if (found == watchers_.end()) return;
    std::vector<std::weak_ptr<Watcher>> still;
    for (const std::weak_ptr<Watcher>& weak : found->second) {
      const std::shared_ptr<Watcher> watcher = weak.lock();
      if (watcher == nullptr) continue;
      watcher->Offer(job);
      if (ended) {
        watcher->End(absl::OkStatus());
      } else {
        still.push_back(weak);
      }
    }
    if (still.empty()) {
      watchers_.erase(found);
    } else {
      found->second = std::move(still);
    }
  }

  // Ends the streams of those who may not watch any more.
  void EndLapsed() {
    for (auto it = watchers_.begin(); it != watchers_.end();) {
      std::erase_if(it->second, [](const std::weak_ptr<Watcher>& weak) {
        const std::shared_ptr<Watcher> watcher = weak.lock();
        const absl::Status standing = watcher == nullptr ? absl::OkStatus() : watcher->Standing();
        if (!standing.ok()) watcher->End(standing);
        return watcher == nullptr || !standing.ok();
      });
      it = it->second.empty() ? watchers_.erase(it) : std::next(it);
    }
  }

  void EndAll(const absl::Status& status) {
    for (const auto& [job, watchers] : watchers_) {
      for (const std::weak_ptr<Watcher>& weak : watchers) {
        if (const std::shared_ptr<Watcher> watcher = weak.lock()) watcher->End(status);
      }
    }
    watchers_.clear();
  }

 private:
  std::map<std::string, std::vector<std::weak_ptr<Watcher>>> watchers_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_WATCHERS_H_
