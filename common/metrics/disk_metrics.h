// How much space is left where a process writes.
#ifndef SEQPAR_COMMON_METRICS_DISK_METRICS_H_
#define SEQPAR_COMMON_METRICS_DISK_METRICS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/data_roots.h"
#include "common/base/mutex.h"
#include "common/metrics/registry.h"

namespace seqpar {

struct DiskSpace {
  double free_bytes = 0;  // for this user
  double size_bytes = 0;
};

// The space of one file system, asked for again and again by a thread of its own: a file system whose server
// is gone may keep a call for ever, and nobody else is to wait for it. Thread-safe.
class DiskWatch {
 public:
  using Ask = std::function<std::optional<DiskSpace>()>;  // nothing: it failed
  static constexpr std::chrono::milliseconds kPeriod{10'000};
  static constexpr int64_t kSilentUs = 30'000'000;

  // Asks now and then every `period`. `clock` outlives every answer.
  DiskWatch(Ask ask, const Clock* clock, std::chrono::milliseconds period = kPeriod);
  // Does not wait for an answer; `ask` is destroyed when the last has come.
  ~DiskWatch();

  // The last answer; nothing where there is none, it failed, or none came for kSilentUs.
  std::optional<DiskSpace> Last() const;

 private:
  struct State {
    Mutex mutex;
    ConditionVariable stopped;
    bool stop ABSL_GUARDED_BY(mutex) = false;
    std::optional<DiskSpace> last ABSL_GUARDED_BY(mutex);
    int64_t answered_us ABSL_GUARDED_BY(mutex) = 0;
  };
  static void Run(State* state, const Ask& ask, const Clock& clock, std::chrono::milliseconds period);

  const Clock* const clock_;
  const std::shared_ptr<State> state_;  // the thread's too
};

// Free space and size of the file systems of the state folder and of each data root, as they were within the
// last DiskWatch::kSilentUs; one that does not answer has no series. `registry` and `clock` outlive all
// scrapes.
void AddDiskMetrics(const std::string& state_dir, const DataRoots& roots, const Clock* clock,
                    MetricRegistry* registry);

}  // namespace seqpar

#endif  // SEQPAR_COMMON_METRICS_DISK_METRICS_H_
