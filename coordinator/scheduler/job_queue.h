// The jobs that wait for devices, in the order of their turns. A value; one thread.
//
// A pass of the scheduler looks at the first of them. Whoever cannot be placed whatever becomes free is set
// aside, so that a pass is not spent on it: until there are other nodes, or until its tenant has less.
#ifndef SEQPAR_COORDINATOR_SCHEDULER_JOB_QUEUE_H_
#define SEQPAR_COORDINATOR_SCHEDULER_JOB_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>

namespace seqpar {

struct Turn {
  int priority = 0;
  int64_t sequence = 0;  // order of submission
  std::string job;
  std::string tenant;
  friend bool operator<(const Turn& a, const Turn& b) {
    return a.priority != b.priority ? a.priority > b.priority : a.sequence < b.sequence;
  }
};

class JobQueue {
 public:
  // Those that a tenant's end of a job gives back to the passes at once.
  static constexpr size_t kReleased = 50;

  // Behind one of its tenant that is held back it is held back too. Nothing where it waits already.
  void Add(const Turn& turn);
  void Remove(const Turn& turn);

  // Those that passes look at.
  const std::set<Turn>& turns() const { return turns_; }
  // Whether fewer than `n` of them are before it.
  bool IsAmongFirst(const Turn& turn, size_t n) const;

  // The nodes that there are now, in whatever words. Other than before: those that were set aside for them
  // are looked at again.
  void SetNodes(const std::string& nodes);
  const std::string& nodes() const { return nodes_; }
  // Until there are other nodes.
  void SetAside(const Turn& turn);

  // Its tenant has all that it may: held back until Release.
  void Hold(const Turn& turn);
  // The tenant may have more: the first of those that are held back are looked at again. False: there is
  // none.
  bool Release(const std::string& tenant);
  // The first of the tenant that is held back; null: none.
  const Turn* FirstHeld(const std::string& tenant) const;

 private:
  std::set<Turn> turns_, set_aside_;
  std::map<std::string, std::set<Turn>> held_;  // by tenant; never empty ones
  std::string nodes_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_SCHEDULER_JOB_QUEUE_H_
