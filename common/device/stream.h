// Streams order work on a device; events order streams among each other.
//
// One meaning on every backend: an operation is complete when it has happened in stream order. Operations
// never report errors themselves: the first failure is sticky in its stream, later operations of that stream
// are skipped, events recorded after it carry the failure, and a stream that waits for such an event fails
// with the same status.
#ifndef SEQPAR_COMMON_DEVICE_STREAM_H_
#define SEQPAR_COMMON_DEVICE_STREAM_H_

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

// Enqueue from one thread at a time. Destroying a stream waits until it is empty.
class Stream {
 public:
  virtual ~Stream() = default;
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

 private:
  virtual void Host(std::function<absl::Status()> fn, WorkKind kind) = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COMMON_DEVICE_STREAM_H_
