// When to look at whom next. A value; one thread.
#ifndef SEQPAR_COORDINATOR_ENGINE_ALARMS_H_
#define SEQPAR_COORDINATOR_ENGINE_ALARMS_H_

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace seqpar {

// At most one a name. Times are of one clock, whichever.
class Alarms {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // In place of the one that it had. kNever: none.
  void Set(const std::string& name, int64_t at_us) {
    const auto found = by_name_.find(name);
    if (found != by_name_.end()) {
      if (found->second == at_us) return;
      by_time_.erase({found->second, name});
      by_name_.erase(found);
    }
    if (at_us == kNever) return;
    by_name_.emplace(name, at_us);
    by_time_.insert({at_us, name});
  }
  // Removes those that are due, and names them in their order.
  std::vector<std::string> TakeDue(int64_t now_us) {
    std::vector<std::string> due;
    while (!by_time_.empty() && by_time_.begin()->first <= now_us) {
      due.push_back(by_time_.begin()->second);
      by_name_.erase(due.back());
      by_time_.erase(by_time_.begin());
    }
    return due;
  }
  // When the first is due; kNever: there is none.
  int64_t NextUs() const { return by_time_.empty() ? kNever : by_time_.begin()->first; }

 private:
  std::map<std::string, int64_t> by_name_;
  std::set<std::pair<int64_t, std::string>> by_time_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_ENGINE_ALARMS_H_
