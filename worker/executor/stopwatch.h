// What the execute phase takes, by the clocks of a rank's streams.
#ifndef SEQPAR_WORKER_EXECUTOR_STOPWATCH_H_
#define SEQPAR_WORKER_EXECUTOR_STOPWATCH_H_

#include <chrono>

#include "common/base/mutex.h"
#include "common/device/stream.h"

namespace seqpar {

// What one pass took on this rank, or the whole execute phase. Seconds exclude the writing of gradients and
// verification, which run between the layers.
struct PassFigures {
  double wall_seconds = 0;
  double compute_seconds = 0;  // kernels on the compute stream
  double exposed_seconds = 0;  // compute waited for communication
  double hidden_seconds = 0;   // communication that compute did not wait for
  double cpu_seconds = 0;      // of the compute threads
  double attention_seconds = 0, product_seconds = 0, pointwise_seconds = 0;  // parts of compute_seconds
};
PassFigures operator+(const PassFigures& a, const PassFigures& b);

// Counts from its creation; Pause and Resume leave out what is done between layers. Those two from one
// thread.
class Stopwatch {
 public:
  // The streams outlive it.
  Stopwatch(const Stream* compute, const Stream* comm);

  void Resume();
  void Pause();
  // Up to the last Pause.
  PassFigures figures() const;
  // Up to now, but for CPU time and hidden communication, which are as of the last Pause: what is hidden is
  // known only once both streams have got as far. From any thread.
  PassFigures Now() const;

 private:
  // Clocks of a rank that can be subtracted.
  struct Clocks {
    std::chrono::steady_clock::time_point time;
    double cpu = 0;
    StreamTimes compute, comm;
  };
  Clocks Read() const;
  PassFigures Since(const Clocks& begin) const;

  const Stream* const compute_;
  const Stream* const comm_;
  mutable Mutex mutex_;
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  Clocks begin_ ABSL_GUARDED_BY(mutex_);
  PassFigures figures_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_STOPWATCH_H_
