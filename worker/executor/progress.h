// How far an executor is: written by the threads that work, sent to the daemon by one that never waits on a
// device.
#ifndef SEQPAR_WORKER_EXECUTOR_PROGRESS_H_
#define SEQPAR_WORKER_EXECUTOR_PROGRESS_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/comm/communicator.h"
#include "common/device/device.h"
#include "common/job/job.h"
#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/report.pb.h"
#include "worker/config.h"
#include "worker/executor/stopwatch.h"

namespace seqpar {

// What the sender looks at beside the phase and the layers. All outlive the watch.
struct ProgressSources {
  const Device* device = nullptr;
  const TrafficCounter* traffic = nullptr;
  double tokens = 0, flops = 0;  // the rank's part of the job
  double done_before = 0;        // the fraction of it that lies behind the checkpoint it goes on from
  std::vector<const Communicator*> groups;
  std::map<std::string, std::vector<int>> world_ranks;  // of each group's ranks, by the group's name
};

// Thread-safe. `send` is called with every report: at once when the phase changes, and every 200 ms between.
class Progress {
 public:
  Progress(std::vector<ExecutorHold> holds, std::function<void(const v1::RankProgress&)> send);
  ~Progress();

  // Ends the present phase and begins the next. Blocks while a hold's file for it exists.
  void Enter(JobPhase phase);
  JobPhase phase() const { return phase_.load(); }
  // Seconds of the phases entered so far, in order; the present one up to now.
  std::vector<v1::PhaseSeconds> Seconds() const;

  void Watch(ProgressSources sources);
  void StopWatching() { Watch({}); }

  // Where the execute phase's figures come from: read until StopMeasuring, whose last ones stand from then
  // on.
  void Measure(std::function<PassFigures()> figures);
  void StopMeasuring();

  // `layers` are finished in the pass ("forward", "backward"); `fraction` of all work is done. From a
  // stream's thread.
  void Advance(const char* pass, int layers, double fraction);
  // Something was done that no layer shows: a tensor was read, a block was written.
  void Step() { steps_.fetch_add(1); }

 private:
  using Time = std::chrono::steady_clock::time_point;
  void Run();
  v1::RankProgress Sample() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SampleTotals(v1::RankTotals* totals) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<v1::PhaseSeconds> PhasesSoFar() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<ExecutorHold> holds_;
  const std::function<void(const v1::RankProgress&)> send_;
  std::atomic<JobPhase> phase_{JobPhase::kBootstrap};
  std::atomic<const char*> pass_{""};
  std::atomic<int> layers_{0};
  std::atomic<double> fraction_{0};
  std::atomic<int64_t> steps_{0};

  mutable Mutex mutex_;
  ConditionVariable changed_;
  ProgressSources sources_ ABSL_GUARDED_BY(mutex_);
  std::function<PassFigures()> measure_ ABSL_GUARDED_BY(mutex_);  // null: figures_ stand
  PassFigures figures_ ABSL_GUARDED_BY(mutex_);                   // as sampled last
  double sampled_fraction_ ABSL_GUARDED_BY(mutex_) = 0;
  double fraction_seconds_ ABSL_GUARDED_BY(mutex_) = 0;  // compute seconds when fraction_ moved last
  std::vector<std::pair<JobPhase, Time>> entered_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: uses all of the above
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_PROGRESS_H_
