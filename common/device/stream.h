// Streams order work on a device; events order streams among each other.
//
// One meaning on every backend: an operation is complete when it has happened in stream order. Operations
// never report errors themselves: the first failure is sticky in its stream, later operations of that stream
// are skipped, events recorded after it carry the failure, and a stream that waits for such an event fails
// with the same status.
#ifndef SEQPAR_COMMON_DEVICE_STREAM_H_
#define SEQPAR_COMMON_DEVICE_STREAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace seqpar {

// A point in a stream. Copyable; shared ownership of the backend's state; a default one has already happened.
class Event {
 public:
  class State {
   public:
    virtual ~State() = default;
  };
  Event() = default;
  explicit Event(std::shared_ptr<State> state) : state_(std::move(state)) {}
  const std::shared_ptr<State>& state() const { return state_; }

 private:
  std::shared_ptr<State> state_;
};

// What an operation is, for the times of a stream.
enum class WorkKind { kOther, kAttention, kProduct, kPointwise };
inline constexpr int kWorkKinds = 4;

struct StreamTimes {
  double busy_seconds = 0;               // executing operations
  double wait_seconds = 0;               // waiting for events of other streams
  double busy_by_kind[kWorkKinds] = {};  // their sum is busy_seconds
  double Busy(WorkKind kind) const { return busy_by_kind[static_cast<int>(kind)]; }
};

// One stretch of a stream's time. The spans of a stream come in order and do not overlap; what is between
// them the stream was idle. Of a GPU's stream consecutive operations of one kind and name are one span.
struct StreamSpan {
  int64_t begin_ns = 0, end_ns = 0;  // CLOCK_MONOTONIC of this machine
  bool waiting = false;              // for an event of another stream; else executing
  WorkKind kind = WorkKind::kOther;  // executing
  const char* name = nullptr;        // of the operation, see Stream::Name; may be null
};

// Told each span when it is over: its seconds are in times() by then. From the stream's thread or one that
// synchronises with it; must not wait.
class StreamObserver {
 public:
  virtual ~StreamObserver() = default;
  virtual void Happened(const StreamSpan& span) = 0;
};

// Enqueue from one thread at a time. Destroying a stream waits until it is empty.
class Stream {
 public:
  virtual ~Stream() = default;
  // Once, before anything is enqueued. `observer` outlives the stream.
  void Observe(StreamObserver* observer) { observer_ = observer; }
  // What operations enqueued from now on are called in spans: a string literal, or null.
  void Name(const char* name) { name_ = name; }
  virtual Event Record() = 0;
  // Later operations of this stream begin after `event` has happened.
  virtual void Wait(const Event& event) = 0;
  // Blocks until everything enqueued so far has happened; the sticky status.
  virtual absl::Status Synchronize() = 0;
  // The sticky status as known now, without blocking.
  virtual absl::Status status() const = 0;
  // Fails the stream from any thread: what has not begun is skipped.
  virtual void Fail(const absl::Status& why) = 0;
  // Accumulated since creation, of operations that have completed. From any thread.
  virtual StreamTimes times() const = 0;
  // Runs `fn` on the host in stream order. `fn` must not enqueue or synchronise. Its failure fails the
  // stream.
  void HostFunction(std::function<absl::Status()> fn) { Host(std::move(fn), WorkKind::kOther); }
  void HostFunction(WorkKind kind, std::function<absl::Status()> fn) { Host(std::move(fn), kind); }

 protected:
  StreamObserver* observer() const { return observer_; }
  const char* name() const { return name_; }

 private:
  virtual void Host(std::function<absl::Status()> fn, WorkKind kind) = 0;

  StreamObserver* observer_ = nullptr;
  const char* name_ = nullptr;  // the enqueueing thread's
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_DEVICE_STREAM_H_
