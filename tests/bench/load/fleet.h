// Nodes that run nothing: each attaches as a worker does, beats, takes ranks, lets them meet, and after a
// while has finished them.
#ifndef SEQPAR_TESTS_BENCH_LOAD_FLEET_H_
#define SEQPAR_TESTS_BENCH_LOAD_FLEET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "tests/bench/load/stats.h"

namespace seqpar::load {

struct FleetOptions {
  std::string server;
  int nodes = 1000;
  int devices = 8;          // of a node
  double job_seconds = 60;  // a gang takes half of it to one and a half
};

struct FleetCounts {
  int64_t term = 0;           // the latest that a node was welcomed with
  int attached = 0;           // nodes that were welcomed with it, on the stream that they have
  int64_t streams_ended = 0;  // while the coordinator was meant to be there
  int64_t ranks_started = 0, ranks_finished = 0, ranks_stopped = 0;
  int64_t ranks_resumed = 0;  // that a new stream found running and that go on
  int64_t largest_message_bytes = 0;
  // Of messages that start ranks: the largest, and its plan's number of ranks.
  int64_t largest_start_bytes = 0, largest_start_ranks = 0;
  int64_t late_beats = 0;  // the one before was not written yet: this one was left out
};

class SimNode;

// Thread-safe. Each node has a connection of its own, as a worker has.
class Fleet {
 public:
  explicit Fleet(const FleetOptions& options);
  // Ends every stream.
  ~Fleet();

  // False while the coordinator is being restarted: then streams end.
  void SetExpected(bool expected);
  FleetCounts counts() const;
  // From sending a heartbeat to its answer.
  Times& answers() { return shared_.answers; }

 private:
  friend class SimNode;
  struct Shared {
    FleetOptions options;
    Times answers;
    mutable Mutex mutex;
    FleetCounts counts ABSL_GUARDED_BY(mutex);
    bool expected ABSL_GUARDED_BY(mutex) = true;
    bool stopping ABSL_GUARDED_BY(mutex) = false;
    ConditionVariable changed;
  };
  void Beat();

  Shared shared_;
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::thread beater_;
};

}  // namespace seqpar::load

#endif  // SEQPAR_TESTS_BENCH_LOAD_FLEET_H_
