// Records what a rank's streams do and sends it now and then, from a thread that never waits on a device.
#ifndef SEQPAR_WORKER_EXECUTOR_TRACE_RECORDER_H_
#define SEQPAR_WORKER_EXECUTOR_TRACE_RECORDER_H_

#include <functional>
#include <thread>

#include "common/base/mutex.h"
#include "common/device/stream.h"
#include "common/job/job.h"
#include "worker/executor/trace_buffer.h"

namespace seqpar {

// Thread-safe. `send` gets chunks in order, one at a time: when many spans are waiting, or after two seconds
// and then ever more seldom (an eighth of the rank's age), so that a rank sends some dozens in a day.
class TraceRecorder {
 public:
  explicit TraceRecorder(std::function<void(v1::TraceChunk)> send);
  ~TraceRecorder();

  StreamObserver* compute() { return &compute_; }
  StreamObserver* communication() { return &communication_; }
  void EnterPhase(JobPhase phase);
  void EnterLayer(const char* pass, int layer) { buffer_.EnterLayer(pass, layer); }
  void LeaveLayer() { buffer_.LeaveLayer(); }
  // Sends what is there.
  void Flush();

 private:
  class Recording : public StreamObserver {
   public:
    Recording(TraceBuffer* buffer, TraceBuffer::Track track) : buffer_(buffer), track_(track) {}
    void Happened(const StreamSpan& span) override { buffer_->Add(track_, span); }

   private:
    TraceBuffer* const buffer_;
    const TraceBuffer::Track track_;
  };

  void Run();

  const std::function<void(v1::TraceChunk)> send_;
  TraceBuffer buffer_;
  Recording compute_{&buffer_, TraceBuffer::Track::kCompute};
  Recording communication_{&buffer_, TraceBuffer::Track::kCommunication};

  Mutex send_mutex_;  // held while sending: chunks leave in order
  Mutex mutex_;
  ConditionVariable changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: uses all of the above
};

}  // namespace seqpar

#endif  // SEQPAR_WORKER_EXECUTOR_TRACE_RECORDER_H_
