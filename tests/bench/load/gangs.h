// The ranks that a simulated node has, without the wire: what it says of them.
#ifndef SEQPAR_TESTS_BENCH_LOAD_GANGS_H_
#define SEQPAR_TESTS_BENCH_LOAD_GANGS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "seqpar/v1/fleet.pb.h"
#include "tests/bench/load/stats.h"

namespace seqpar::load {

class Gangs {
 public:
  explicit Gangs(double job_seconds) : job_seconds_(job_seconds) {}

  // Each returns what is to be sent, and adds to *ranks how many ranks it is about.
  std::vector<v1::WorkerMessage> Start(const v1::StartRanks& start, int64_t* ranks);
  std::vector<v1::WorkerMessage> Stop(const v1::StopGang& stop, int64_t* ranks);
  void Meet(const v1::GangId& gang);  // the ranks have met: from now on they compute
  // Those whose time is over, but for such as have said so. `covered_by`: the next heartbeat.
  std::vector<v1::WorkerMessage> Finish(int64_t covered_by, int64_t* ranks);
  // An answered heartbeat: what it covers need not be told again.
  void Confirm(int64_t heartbeat);

  // What goes into a Hello and a heartbeat.
  void AddRunning(v1::Hello* hello) const;
  void AddProgress(v1::Heartbeat* heartbeat);
  // Only these go on; what they have said that is not confirmed is said again.
  std::vector<v1::WorkerMessage> Keep(const v1::Welcome& welcome, int64_t* ranks);

 private:
  using Key = std::pair<std::string, int32_t>;  // job, attempt
  struct Gang {
    v1::GangId id;
    std::map<int, int> devices;  // by rank
    bool met = false, finished = false;
    TimePoint begin, end;
    int64_t covered_by = 0;  // finished: the heartbeat whose answer confirms it; 0: none was sent
    int64_t step = 0;
  };
  static Key KeyOf(const v1::GangId& id) { return {id.job(), id.attempt()}; }
  static v1::WorkerMessage Event(const Gang& gang, int rank, v1::RankEvent::Kind kind);
  static void AppendStarted(const Gang& gang, int rank, std::vector<v1::WorkerMessage>* messages);
  static void AppendFinished(const Gang& gang, std::vector<v1::WorkerMessage>* messages);

  const double job_seconds_;
  std::map<Key, Gang> gangs_;
};

}  // namespace seqpar::load

#endif  // SEQPAR_TESTS_BENCH_LOAD_GANGS_H_
