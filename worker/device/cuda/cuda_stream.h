// A CUDA stream as a Stream.
#ifndef SEQPAR_WORKER_DEVICE_CUDA_CUDA_STREAM_H_
#define SEQPAR_WORKER_DEVICE_CUDA_CUDA_STREAM_H_

#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/mutex.h"
#include "common/device/stream.h"

namespace seqpar::cuda {

// Events that are used again and again, of one device. Thread-safe.
class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  explicit EventPool(int device) : device_(device) {}
  ~EventPool();
  // An event with timing; it keeps the pool, and goes back to it when the last owner lets go of it. Null
  // where CUDA has none.
  std::shared_ptr<CUevent_st> Take();

 private:
  const int device_;
  Mutex mutex_;
  std::vector<cudaEvent_t> free_ ABSL_GUARDED_BY(mutex_);
};

// How far a device's work is: operations that were begun and have happened. Thread-safe.
class WorkCounter {
 public:
  void Begun(std::shared_ptr<CUevent_st> after);
  int64_t done();

 private:
  Mutex mutex_;
  std::deque<std::shared_ptr<CUevent_st>> pending_ ABSL_GUARDED_BY(mutex_);
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Kernels already handed to the GPU cannot be taken back: after a failure what is enqueued is skipped, what
// was enqueued happens, and its results mean nothing. Failures of host functions and of other streams show at
// Synchronize.
class CudaStream : public Stream {
 public:
  // `work` may be null. `events` and `work` are shared by the streams of a device.
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create(int device, std::shared_ptr<EventPool> events,
                                                            std::shared_ptr<WorkCounter> work);
  ~CudaStream() override;

  Event Record() override;
  void Wait(const Event& event) override;
  absl::Status Synchronize() override;
  absl::Status status() const override;
  void Fail(const absl::Status& why) override;
  // By events where the kind of work changes: what the host leaves idle between two operations counts as the
  // first's.
  StreamTimes times() const override;

  // For who enqueues on the handle: runs enqueue(handle) unless the stream has failed; its error fails the
  // stream.
  void Enqueue(const char* what, const std::function<cudaError_t(cudaStream_t)>& enqueue,
               WorkKind kind = WorkKind::kOther);
  // The same where the work reports a Status.
  void EnqueueStatus(const std::function<absl::Status(cudaStream_t)>& enqueue,
                     WorkKind kind = WorkKind::kOther);

  // Called again and again by whoever waits in Synchronize of this stream or of one that waits for it, in
  // that thread: a failure ends the wait at once, and fails the stream. One a stream.
  void SetWatch(std::function<absl::Status()> watch);
  int device() const { return device_; }

 private:
  // What outlives the stream: host functions and events of other streams hold it.
  struct Core {
    Mutex mutex;
    absl::Status status ABSL_GUARDED_BY(mutex);
    std::function<absl::Status()> watch ABSL_GUARDED_BY(mutex);
    std::vector<std::shared_ptr<Core>> waited_for ABSL_GUARDED_BY(mutex);
    void Fail(const absl::Status& why);
    absl::Status Known();  // its own, else the first of those that it waited for
    absl::Status Watch();  // its own, then theirs
  };
  struct CudaEvent;
  static constexpr int kWaiting = kWorkKinds;  // beside the kinds of work
  struct TimeMark {
    std::shared_ptr<CUevent_st> begin;
    int state;  // a WorkKind, or kWaiting; until the next mark
    const char* name;
  };

  CudaStream(int device, cudaStream_t handle, std::shared_ptr<EventPool> events,
             std::shared_ptr<WorkCounter> work);
  void Host(std::function<absl::Status()> fn, WorkKind kind) override;
  bool Begin(int state);
  std::shared_ptr<CUevent_st> Mark();
  absl::Status WaitUntil(cudaEvent_t event);
  void AddTimes(const std::shared_ptr<CUevent_st>& end);
  void TellSpans(const std::vector<double>& seconds, const std::shared_ptr<CUevent_st>& end);

  const int device_;
  const cudaStream_t handle_;
  const std::shared_ptr<EventPool> events_;
  const std::shared_ptr<WorkCounter> work_;
  const std::shared_ptr<Core> core_ = std::make_shared<Core>();
  std::vector<TimeMark> marks_;  // of the enqueueing thread: since the last Synchronize
  int unmarked_ = 0;             // operations since the last mark for `work_`

  mutable Mutex times_mutex_;
  StreamTimes times_ ABSL_GUARDED_BY(times_mutex_);

  // The GPU's time on the host's clock, for spans; of the thread that synchronises.
  std::shared_ptr<CUevent_st> last_end_;  // of the last Synchronize
  double gpu_seconds_ = 0;                // from the first of them to last_end_
  int64_t anchor_ns_ = 0;                 // host time less GPU time
  int64_t last_span_end_ns_ = 0;
};

}  // namespace seqpar::cuda

#endif  // SEQPAR_WORKER_DEVICE_CUDA_CUDA_STREAM_H_
