// The writing half of a server stream: gRPC takes one message at a time, and its reactor may be gone before
// those who write to it.
#ifndef SEQPAR_COORDINATOR_API_STREAM_WRITER_H_
#define SEQPAR_COORDINATOR_API_STREAM_WRITER_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/mutex.h"
#include "coordinator/api/grpc_status.h"

namespace seqpar {

// What may wait behind the message that is on its way to whoever reads a stream.
struct WriteLimits {
  // As many as a worker may have waiting here (engine/backlog.h): it gets an answer a second, and a handful
  // of messages for each job that runs on it.
  int64_t messages = 4096;
  // The next is taken while less than this waits, however large it is itself: a striped plan of 512 ranks has
  // half a megabyte, and a worker that attaches anew gets the plans of all its jobs at once.
  int64_t bytes = int64_t{256} << 20;
};

// Queues messages for `Reactor` (a callback server reactor with StartWrite and Finish) and writes them in
// order, one on its way at a time. Thread-safe; no call waits. Held by a shared_ptr: whoever writes may
// outlive the reactor, and then writes to nobody.
template <typename Reactor, typename Message>
class StreamWriter {
 public:
  // The reactor passes on OnWriteDone and OnDone, and lives until the latter.
  explicit StreamWriter(Reactor* reactor, const WriteLimits& limits = {})
      : limits_(limits), reactor_(reactor) {}
  StreamWriter(const StreamWriter&) = delete;
  StreamWriter& operator=(const StreamWriter&) = delete;

  // Where more waits than may, whoever should read does not: the message is lost with all that waits, and the
  // stream is broken by the reactor's Break, which makes it end as if its connection had.
  void Write(Message message) {
    MutexLock lock(mutex_);
    if (end_) return;
    const int64_t behind = static_cast<int64_t>(queue_.size()) - (writing_ ? 1 : 0);
    if (behind >= limits_.messages || waiting_bytes_ >= limits_.bytes) return Break(behind);
    Push(std::move(message));
    Advance();
  }

  // In place of whatever still waits: for a reader that wants the latest state, not each one.
  void WriteLatest(Message message) {
    MutexLock lock(mutex_);
    if (end_) return;
    DropWaiting();
    Push(std::move(message));
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
      DropWaiting();
      if (!end_) end_ = absl::CancelledError("the stream broke");
    }
    Advance();
  }

  void OnDone() {
    MutexLock lock(mutex_);
    reactor_ = nullptr;
  }

 private:
  struct Waiting {
    Message message;
    int64_t bytes = 0;
  };

  void Push(Message message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto bytes = static_cast<int64_t>(message.ByteSizeLong());
    waiting_bytes_ += bytes;
    queue_.push_back({std::move(message), bytes});
  }

  // All but what is on its way.
  void DropWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    queue_.erase(queue_.begin() + (writing_ ? 1 : 0), queue_.end());
    waiting_bytes_ = 0;
  }

  void Break(int64_t messages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    end_ = absl::UnavailableError(
        absl::StrCat("nobody reads this stream: ", messages, " messages wait, ", waiting_bytes_, " bytes"));
    DropWaiting();
    if (reactor_ != nullptr) reactor_->Break(*end_);
    Advance();
  }

  // Starts what is due: a write, or the end.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (reactor_ == nullptr || writing_ || finished_) return;
    if (!queue_.empty()) {
      writing_ = true;
      waiting_bytes_ -= queue_.front().bytes;
      reactor_->StartWrite(&queue_.front().message);
    } else if (end_) {
      finished_ = true;
      reactor_->Finish(ToGrpcStatus(*end_));
    }
  }

  const WriteLimits limits_;
  Mutex mutex_;
  Reactor* reactor_ ABSL_GUARDED_BY(mutex_);
  std::deque<Waiting> queue_ ABSL_GUARDED_BY(mutex_);  // its front is on its way while writing_
  int64_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of those behind it
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_STREAM_WRITER_H_
