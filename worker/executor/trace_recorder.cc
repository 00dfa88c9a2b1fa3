#include "worker/executor/trace_recorder.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace seqpar {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(500);
constexpr int64_t kSpansWaitingMax = 4096;
constexpr int64_t kIntervalMinNs = 2'000'000'000;
constexpr int64_t kAgeShare = 8;

int64_t Now(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

int64_t MonotonicNs() { return Now(CLOCK_MONOTONIC); }

}  // namespace

TraceRecorder::TraceRecorder(std::function<void(v1::TraceChunk)> send)
    : send_(std::move(send)),
      buffer_(TraceLimits(), Now(CLOCK_BOOTTIME) - MonotonicNs()),
      thread_([this] { Run(); }) {}

TraceRecorder::~TraceRecorder() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void TraceRecorder::EnterPhase(JobPhase phase) { buffer_.EnterPhase(PhaseName(phase), MonotonicNs()); }

void TraceRecorder::Flush() {
  MutexLock lock(send_mutex_);
  if (std::optional<v1::TraceChunk> chunk = buffer_.Take(MonotonicNs())) send_(*std::move(chunk));
}

void TraceRecorder::Run() {
  const int64_t begin_ns = MonotonicNs();
  int64_t sent_ns = begin_ns;
  while (true) {
    {
      MutexLock lock(mutex_);
      const auto stopping = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; };
      if (changed_.wait_for(mutex_, kPoll, stopping)) return;
    }
    const int64_t now_ns = MonotonicNs();
    const int64_t interval_ns = std::max(kIntervalMinNs, (now_ns - begin_ns) / kAgeShare);
    if (now_ns - sent_ns < interval_ns && buffer_.pending() < kSpansWaitingMax) continue;
    Flush();
    sent_ns = now_ns;
  }
}

}  // namespace seqpar
