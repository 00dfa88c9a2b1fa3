// What a rank does in time, kept within bounds until it is sent (proto/seqpar/v1/trace.proto).
#ifndef SEQPAR_WORKER_EXECUTOR_TRACE_BUFFER_H_
#define SEQPAR_WORKER_EXECUTOR_TRACE_BUFFER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "common/base/mutex.h"
#include "common/device/stream.h"
#include "seqpar/v1/trace.pb.h"

namespace seqpar {

struct TraceLimits {
  int64_t spans = 16'384;  // of a rank, all chunks together; about 8 bytes each
  int64_t uncounted_min_ns =
      1'000'000;  // between layers and outside the execute phase shorter spans are left out
};

// Thread-safe; no call waits. Times are CLOCK_MONOTONIC. Strings are literals.
class TraceBuffer {
 public:
  // boot_offset_ns: CLOCK_BOOTTIME - CLOCK_MONOTONIC.
  TraceBuffer(TraceLimits limits, int64_t boot_offset_ns)
      : limits_(limits), boot_offset_ns_(boot_offset_ns) {}

  enum class Track { kCompute, kCommunication };
  // What the observed stream did, in what has been entered by now.
  void Add(Track track, const StreamSpan& span);
  // Ends the phase before.
  void EnterPhase(const char* phase, int64_t now_ns);
  // What happens until LeaveLayer is what the report counts.
  void EnterLayer(const char* pass, int layer);
  void LeaveLayer();

  int64_t pending() const;  // spans that Take would give
  // What has come since the last Take, the present phase up to now among it; nothing where nothing has. The
  // number is set, the rest of what names the rank is not.
  std::optional<v1::TraceChunk> Take(int64_t now_ns);

 private:
  static constexpr int kPhases = 2;  // the third track
  static constexpr int kTracks = 3;
  using Activity = std::tuple<v1::TraceActivityKind, const char*, const char*, const char*, int>;
  struct Span {
    int64_t begin_ns, end_ns;
    int activity;
  };
  struct Dropped {
    int64_t spans = 0, duration_ns = 0;
  };

  void Keep(int track, int64_t begin_ns, int64_t end_ns, v1::TraceActivityKind kind, const char* name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndPhase(int64_t now_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const TraceLimits limits_;
  const int64_t boot_offset_ns_;
  mutable Mutex mutex_;
  const char* phase_ ABSL_GUARDED_BY(mutex_) = "";
  int64_t phase_begin_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  const char* pass_ ABSL_GUARDED_BY(mutex_) = "";
  int layer_ ABSL_GUARDED_BY(mutex_) = -1;
  int64_t kept_ ABSL_GUARDED_BY(mutex_) = 0;  // of streams, in all chunks
  int64_t chunks_ ABSL_GUARDED_BY(mutex_) = 0;
  // Of the next chunk.
  std::map<Activity, int> activities_ ABSL_GUARDED_BY(mutex_);
  std::vector<Span> spans_[kTracks] ABSL_GUARDED_BY(mutex_);
  std::map<int, Dropped> dropped_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_TRACE_BUFFER_H_
