#include "common/device/host_stream.h"

#include <pthread.h>

#include <chrono>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/base/mutex.h"

namespace seqpar {
namespace {

using SteadyClock = std::chrono::steady_clock;

int64_t Nanoseconds(SteadyClock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

// What wakes a stream's thread: new work, a failure, an event that it waits for.
struct Wakeup {
  Mutex mutex;
  ConditionVariable changed;
};

// Happens once, with the status of the stream that it was recorded in. Thread-safe.
class HostEvent : public Event::State {
 public:
  void Happen(const absl::Status& status) {
    std::vector<std::shared_ptr<Wakeup>> waiters;
    {
      MutexLock lock(mutex_);
      happened_ = true;
      status_ = status;
      waiters.swap(waiters_);
    }
    happening_.notify_all();
    for (const auto& waiter : waiters) {
      // Taking the lock orders this notice after the waiter's check of happened().
      { MutexLock lock(waiter->mutex); }
      waiter->changed.notify_all();
    }
  }

  bool happened() const {
    MutexLock lock(mutex_);
    return happened_;
  }

  // REQUIRES: happened().
  absl::Status status() const {
    MutexLock lock(mutex_);
    return status_;
  }

  // `waiter` is woken when the event happens.
  void Notify(std::shared_ptr<Wakeup> waiter) {
    MutexLock lock(mutex_);
    if (!happened_) waiters_.push_back(std::move(waiter));
  }

  absl::Status Block() {
    MutexLock lock(mutex_);
    while (!happened_) happening_.wait(mutex_);
    return status_;
  }

 private:
  mutable Mutex mutex_;
  ConditionVariable happening_;
  bool happened_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Wakeup>> waiters_ ABSL_GUARDED_BY(mutex_);
};

class HostStream : public Stream {
 public:
  explicit HostStream(const std::string& name) : thread_([this] { Run(); }) {
    pthread_setname_np(thread_.native_handle(), name.substr(0, 15).c_str());
  }

  ~HostStream() override {
    {
      MutexLock lock(wakeup_->mutex);
      closing_ = true;
    }
    wakeup_->changed.notify_all();
    thread_.join();
  }

  Event Record() override {
    auto event = std::make_shared<HostEvent>();
    Push(Operation{Operation::kRecord, nullptr, event});
    return Event(event);
  }

  void Wait(const Event& event) override {
    if (event.state() == nullptr) return;
    auto host_event = std::dynamic_pointer_cast<HostEvent>(event.state());
    SEQPAR_CHECK(host_event != nullptr);  // an event of another kind of device
    Push(Operation{Operation::kWait, nullptr, std::move(host_event)});
  }

  absl::Status Synchronize() override {
    SEQPAR_CHECK(std::this_thread::get_id() != thread_.get_id());
    auto event = std::make_shared<HostEvent>();
    Push(Operation{Operation::kRecord, nullptr, event});
    return event->Block();
  }

  absl::Status status() const override {
    MutexLock lock(wakeup_->mutex);
    return status_;
  }

  void Fail(const absl::Status& why) override {
    SEQPAR_CHECK(!why.ok());
    {
      MutexLock lock(wakeup_->mutex);
      if (status_.ok()) status_ = why;
    }
    wakeup_->changed.notify_all();
  }

  StreamTimes times() const override {
    MutexLock lock(wakeup_->mutex);
    return times_;
  }

 private:
  void Host(std::function<absl::Status()> fn, WorkKind kind) override {
    Push(Operation{Operation::kRun, std::move(fn), nullptr, kind, name()});
  }

  struct Operation {
    enum Kind { kRun, kRecord, kWait } kind;
    std::function<absl::Status()> fn;
    std::shared_ptr<HostEvent> event;
    WorkKind work = WorkKind::kOther;
    const char* name = nullptr;
  };

  void Push(Operation operation) {
    {
      MutexLock lock(wakeup_->mutex);
      queue_.push_back(std::move(operation));
    }
    wakeup_->changed.notify_all();
  }

  void Run() {
    for (;;) {
      Operation operation;
      {
        MutexLock lock(wakeup_->mutex);
        while (queue_.empty() && !closing_) wakeup_->changed.wait(wakeup_->mutex);
        if (queue_.empty()) return;
        operation = std::move(queue_.front());
        queue_.pop_front();
      }
      Execute(operation);
    }
  }

  void Execute(Operation& operation) {
    const absl::Status before = status();
    switch (operation.kind) {
      case Operation::kRecord:
        operation.event->Happen(before);
        break;
      case Operation::kWait:
        if (before.ok()) WaitFor(operation.event);
        break;
      case Operation::kRun: {
        if (!before.ok()) break;
        const auto start = SteadyClock::now();
        const absl::Status result = operation.fn();
        const auto end = SteadyClock::now();
        if (!result.ok()) Fail(result);
        Count({Nanoseconds(start), Nanoseconds(end), false, operation.work, operation.name});
        break;
      }
    }
  }

  void Count(const StreamSpan& span) {
    const double seconds = static_cast<double>(span.end_ns - span.begin_ns) * 1e-9;
    {
      MutexLock lock(wakeup_->mutex);
      if (span.waiting) {
        times_.wait_seconds += seconds;
      } else {
        times_.busy_seconds += seconds;
        times_.busy_by_kind[static_cast<int>(span.kind)] += seconds;
      }
    }
    if (observer() != nullptr) observer()->Happened(span);
  }

  // Until the event has happened or this stream fails: a cancelled stream does not wait for a peer that may
  // be stuck.
  void WaitFor(const std::shared_ptr<HostEvent>& event) {
    if (!event->happened()) {
      const auto start = SteadyClock::now();
      event->Notify(wakeup_);
      {
        MutexLock lock(wakeup_->mutex);
        while (!event->happened() && status_.ok()) wakeup_->changed.wait(wakeup_->mutex);
      }
      Count({Nanoseconds(start), Nanoseconds(SteadyClock::now()), true, WorkKind::kOther, nullptr});
    }
    if (event->happened() && !event->status().ok()) Fail(event->status());
  }

  // Shared with the events that this stream waits for, which may outlive it.
  const std::shared_ptr<Wakeup> wakeup_ = std::make_shared<Wakeup>();
  std::deque<Operation> queue_ ABSL_GUARDED_BY(wakeup_->mutex);
  bool closing_ ABSL_GUARDED_BY(wakeup_->mutex) = false;
  absl::Status status_ ABSL_GUARDED_BY(wakeup_->mutex);
  StreamTimes times_ ABSL_GUARDED_BY(wakeup_->mutex);
  std::thread thread_;  // last: started when everything else exists
};

}  // namespace

std::unique_ptr<Stream> MakeHostStream(const std::string& name) { return std::make_unique<HostStream>(name); }

}  // namespace seqpar
