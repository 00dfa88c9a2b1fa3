// The writing half of a server stream: gRPC takes one message at a time, and its reactor may be gone before
// those who write to it.
#ifndef SEQPAR_COORDINATOR_API_STREAM_WRITER_H_
#define SEQPAR_COORDINATOR_API_STREAM_WRITER_H_

#include <deque>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "common/base/mutex.h"
#include "coordinator/api/grpc_status.h"

namespace seqpar {

// Queues messages for `Reactor` (a callback server reactor with StartWrite and Finish) and writes them in
// order, one on its way at a time. Thread-safe; no call waits. Held by a shared_ptr: whoever writes may
// outlive the reactor, and then writes to nobody.
template <typename Reactor, typename Message>
class StreamWriter {
 public:
  // The reactor passes on OnWriteDone and OnDone, and lives until the latter.
  explicit StreamWriter(Reactor* reactor) : reactor_(reactor) {}
  StreamWriter(const StreamWriter&) = delete;
  StreamWriter& operator=(const StreamWriter&) = delete;

  void Write(Message message) {
    MutexLock lock(mutex_);
    if (end_) return;
    queue_.push_back(std::move(message));
    Advance();
  }

  // In place of whatever still waits: for a reader that wants the latest state, not each one.
  void WriteLatest(Message message) {
    MutexLock lock(mutex_);
    if (end_) return;
    queue_.erase(queue_.begin() + (writing_ ? 1 : 0), queue_.end());
    queue_.push_back(std::move(message));
    Advance();
  }

  // Ends the stream once all that was queued is written. The first status counts.
  void Finish(const absl::Status& status) {
    MutexLock lock(mutex_);
    if (!end_) end_ = status;
    Advance();
  }

  // --- for the reactor ---

  void OnWriteDone(bool ok) {
    MutexLock lock(mutex_);
    writing_ = false;
    queue_.pop_front();
    if (!ok) {
      queue_.clear();
      if (!end_) end_ = absl::CancelledError("the stream broke");
    }
    Advance();
  }

  void OnDone() {
    MutexLock lock(mutex_);
    reactor_ = nullptr;
  }

 private:
  // Starts what is due: a write, or the end.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (reactor_ == nullptr || writing_ || finished_) return;
    if (!queue_.empty()) {
      writing_ = true;
      reactor_->StartWrite(&queue_.front());
    } else if (end_) {
      finished_ = true;
      reactor_->Finish(ToGrpcStatus(*end_));
    }
  }

  Mutex mutex_;
  Reactor* reactor_ ABSL_GUARDED_BY(mutex_);
  std::deque<Message> queue_ ABSL_GUARDED_BY(mutex_);  // its front is on its way while writing_
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_STREAM_WRITER_H_
