#include "worker/device/cuda/cuda_stream.h"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/device/cuda/cuda_status.h"

namespace seqpar::cuda {
namespace {

// Synchronize spins for as long as a wake-up would take, then looks now and then: a waiting rank costs no
// core, and a failed peer or a cancel ends the wait, which would not end by itself. Being woken is slower: on
// an H200 a host function that notifies, and cudaEventSynchronize with cudaEventBlockingSync, returned 30 to
// 150 us after a loop that never slept, these naps 20 to 45 us after it.
constexpr auto kSpin = std::chrono::microseconds(100);
constexpr auto kSleep = std::chrono::microseconds(50);
// Linux lengthens the sleeps of a thread by up to this, and by 50 us unless it is told otherwise: a nap was
// two.
constexpr unsigned long kTimerSlackNs = 1000;  // prctl's type
// Operations between two marks of progress.
constexpr int kOperationsAMark = 8;

double Seconds(cudaEvent_t begin, cudaEvent_t end) {
  float milliseconds = 0;
  return cudaEventElapsedTime(&milliseconds, begin, end) == cudaSuccess ? milliseconds / 1e3 : 0;
}

}  // namespace

EventPool::~EventPool() {
  for (cudaEvent_t event : free_) cudaEventDestroy(event);
}

std::shared_ptr<CUevent_st> EventPool::Take() {
  cudaEvent_t event = nullptr;
  {
    MutexLock lock(mutex_);
    if (!free_.empty()) {
      event = free_.back();
      free_.pop_back();
    }
  }
  if (event == nullptr) {
    cudaSetDevice(device_);
    if (cudaEventCreate(&event) != cudaSuccess) return nullptr;
  }
  return std::shared_ptr<CUevent_st>(event, [pool = shared_from_this()](cudaEvent_t e) {
    MutexLock lock(pool->mutex_);
    pool->free_.push_back(e);
  });
}

void WorkCounter::Begun(std::shared_ptr<CUevent_st> after) {
  MutexLock lock(mutex_);
  pending_.push_back(std::move(after));
}

int64_t WorkCounter::done() {
  MutexLock lock(mutex_);
  while (!pending_.empty() && cudaEventQuery(pending_.front().get()) == cudaSuccess) {
    pending_.pop_front();
    ++done_;
  }
  return done_;
}

struct CudaStream::CudaEvent : public Event::State {
  std::shared_ptr<CUevent_st> event;
  std::shared_ptr<Core> origin;
  absl::Status status;  // of the stream when the event was recorded
};

void CudaStream::Core::Fail(const absl::Status& why) {
  MutexLock lock(mutex);
  if (status.ok()) status = why;
}

absl::Status CudaStream::Core::Known() {
  std::vector<std::shared_ptr<Core>> others;
  {
    MutexLock lock(mutex);
    if (!status.ok()) return status;
    others = waited_for;
  }
  for (const std::shared_ptr<Core>& other : others) {
    absl::Status theirs;
    {
      MutexLock lock(other->mutex);
      theirs = other->status;
    }
    if (theirs.ok()) continue;
    Fail(theirs);
    return theirs;
  }
  return absl::OkStatus();
}

absl::Status CudaStream::Core::Watch() {
  std::vector<std::function<absl::Status()>> watches;
  std::vector<std::shared_ptr<Core>> others;
  {
    MutexLock lock(mutex);
    if (watch) watches.push_back(watch);
    others = waited_for;
  }
  for (const std::shared_ptr<Core>& other : others) {
    MutexLock lock(other->mutex);
    if (other->watch) watches.push_back(other->watch);
  }
  for (const auto& each : watches) SEQPAR_RETURN_IF_ERROR(each());
  return absl::OkStatus();
}

void CudaStream::SetWatch(std::function<absl::Status()> watch) {
  MutexLock lock(core_->mutex);
  core_->watch = std::move(watch);
}

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create(int device, std::shared_ptr<EventPool> events,
                                                               std::shared_ptr<WorkCounter> work) {
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaSetDevice(device), "select the device");
  cudaStream_t handle;
  SEQPAR_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "make a stream");
  return std::unique_ptr<CudaStream>(new CudaStream(device, handle, std::move(events), std::move(work)));
}

CudaStream::CudaStream(int device, cudaStream_t handle, std::shared_ptr<EventPool> events,
                       std::shared_ptr<WorkCounter> work)
    : device_(device), handle_(handle), events_(std::move(events)), work_(std::move(work)) {}

CudaStream::~CudaStream() {
  cudaSetDevice(device_);
  if (status().ok()) cudaStreamSynchronize(handle_);  // a failed one may be stuck behind a peer
  cudaStreamDestroy(handle_);
}

std::shared_ptr<CUevent_st> CudaStream::Mark() {
  std::shared_ptr<CUevent_st> event = events_->Take();
  const cudaError_t error =
      event == nullptr ? cudaErrorMemoryAllocation : cudaEventRecord(event.get(), handle_);
  if (error != cudaSuccess) {
    core_->Fail(ToStatus(error, "record an event"));
    return nullptr;
  }
  return event;
}

bool CudaStream::Begin(int state) {
  cudaSetDevice(device_);
  if (!core_->Known().ok()) return false;
  if (!marks_.empty() && marks_.back().state == state && marks_.back().name == name()) return true;
  std::shared_ptr<CUevent_st> mark = Mark();
  if (mark == nullptr) return false;
  marks_.push_back({std::move(mark), state, name()});
  return true;
}

void CudaStream::EnqueueStatus(const std::function<absl::Status(cudaStream_t)>& enqueue, WorkKind kind) {
  if (!Begin(static_cast<int>(kind))) return;
  const absl::Status status = enqueue(handle_);
  if (!status.ok()) return core_->Fail(status);
  if (work_ == nullptr || ++unmarked_ < kOperationsAMark) return;
  unmarked_ = 0;
  if (std::shared_ptr<CUevent_st> after = Mark()) work_->Begun(std::move(after));
}

void CudaStream::Enqueue(const char* what, const std::function<cudaError_t(cudaStream_t)>& enqueue,
                         WorkKind kind) {
  EnqueueStatus([&](cudaStream_t handle) { return ToStatus(enqueue(handle), what); }, kind);
}

Event CudaStream::Record() {
  auto state = std::make_shared<CudaEvent>();
  state->origin = core_;
  cudaSetDevice(device_);
  state->event = Mark();
  state->status = core_->Known();
  return Event(state);
}

void CudaStream::Wait(const Event& event) {
  if (event.state() == nullptr) return;
  auto theirs = std::dynamic_pointer_cast<CudaEvent>(event.state());
  SEQPAR_CHECK(theirs != nullptr);  // an event of another kind of device
  if (!theirs->status.ok()) core_->Fail(theirs->status);
  if (!Begin(kWaiting) || theirs->event == nullptr) return;
  if (theirs->origin != core_) {
    MutexLock lock(core_->mutex);
    auto& all = core_->waited_for;
    if (std::find(all.begin(), all.end(), theirs->origin) == all.end()) all.push_back(theirs->origin);
  }
  const cudaError_t error = cudaStreamWaitEvent(handle_, theirs->event.get(), 0);
  if (error != cudaSuccess) core_->Fail(ToStatus(error, "wait for an event"));
}

absl::Status CudaStream::WaitUntil(cudaEvent_t event) {
  thread_local const int slack = prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
  static_cast<void>(slack);  // where it cannot be set, naps are longer
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    const cudaError_t state = cudaEventQuery(event);
    if (state == cudaSuccess) return absl::OkStatus();
    if (state != cudaErrorNotReady) return ToStatus(state, "an operation on the device");
    SEQPAR_RETURN_IF_ERROR(core_->Watch());
    SEQPAR_RETURN_IF_ERROR(core_->Known());
    if (std::chrono::steady_clock::now() - start > kSpin) std::this_thread::sleep_for(kSleep);
  }
}

absl::Status CudaStream::Synchronize() {
  cudaSetDevice(device_);
  if (absl::Status known = core_->Known(); !known.ok()) return known;
  const std::shared_ptr<CUevent_st> end = Mark();
  if (end == nullptr) return core_->Known();
  if (const absl::Status status = WaitUntil(end.get()); !status.ok()) {
    core_->Fail(status);
    return core_->Known();
  }
  AddTimes(end);
  return core_->Known();
}

void CudaStream::AddTimes(const std::shared_ptr<CUevent_st>& end) {
  std::vector<double> seconds;
  for (size_t i = 0; i < marks_.size(); ++i) {
    seconds.push_back(
        Seconds(marks_[i].begin.get(), i + 1 < marks_.size() ? marks_[i + 1].begin.get() : end.get()));
  }
  {
    MutexLock lock(times_mutex_);
    for (size_t i = 0; i < marks_.size(); ++i) {
      if (marks_[i].state == kWaiting) {
        times_.wait_seconds += seconds[i];
      } else {
        times_.busy_seconds += seconds[i];
        times_.busy_by_kind[marks_[i].state] += seconds[i];
      }
    }
  }
  if (observer() != nullptr) TellSpans(seconds, end);
  marks_.clear();
}

// An event has no time of day, only distances to others. `end` has happened just now, or up to a nap of
// Synchronize ago: the least that was ever seen between the two clocks is nearest to the truth. Where that
// moves the GPU's time back, spans are pushed behind those that were told: their lengths are as measured.
void CudaStream::TellSpans(const std::vector<double>& seconds, const std::shared_ptr<CUevent_st>& end) {
  const int64_t now_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                             std::chrono::steady_clock::now().time_since_epoch())
                             .count();
  const auto nanoseconds = [](double s) { return static_cast<int64_t>(std::llround(s * 1e9)); };
  double at = gpu_seconds_;
  if (last_end_ != nullptr) {
    if (!marks_.empty()) at += Seconds(last_end_.get(), marks_.front().begin.get());
    gpu_seconds_ += Seconds(last_end_.get(), end.get());
  } else {
    for (const double s : seconds) gpu_seconds_ += s;
  }
  const int64_t anchor_ns = now_ns - nanoseconds(gpu_seconds_);
  anchor_ns_ = last_end_ == nullptr ? anchor_ns : std::min(anchor_ns_, anchor_ns);
  last_end_ = end;
  for (size_t i = 0; i < marks_.size(); ++i) {
    StreamSpan span;
    span.begin_ns = std::max(nanoseconds(at) + anchor_ns_, last_span_end_ns_);
    span.end_ns = span.begin_ns + nanoseconds(seconds[i]);
    span.waiting = marks_[i].state == kWaiting;
    if (!span.waiting) span.kind = static_cast<WorkKind>(marks_[i].state);
    span.name = marks_[i].name;
    last_span_end_ns_ = span.end_ns;
    at += seconds[i];
    observer()->Happened(span);
  }
}

absl::Status CudaStream::status() const {
  MutexLock lock(core_->mutex);
  return core_->status;
}

void CudaStream::Fail(const absl::Status& why) {
  SEQPAR_CHECK(!why.ok());
  core_->Fail(why);
}

StreamTimes CudaStream::times() const {
  MutexLock lock(times_mutex_);
  return times_;
}

void CudaStream::Host(std::function<absl::Status()> fn, WorkKind kind) {
  struct Call {
    std::function<absl::Status()> fn;
    std::shared_ptr<Core> core;
  };
  auto call = std::make_unique<Call>(Call{std::move(fn), core_});
  Enqueue(
      "a host function",
      [&](cudaStream_t handle) {
        const auto run = [](void* argument) {
          const std::unique_ptr<Call> owned(static_cast<Call*>(argument));
          {
            MutexLock lock(owned->core->mutex);
            if (!owned->core->status.ok()) return;
          }
          if (const absl::Status status = owned->fn(); !status.ok()) owned->core->Fail(status);
        };
        const cudaError_t error = cudaLaunchHostFunc(handle, run, call.get());
        if (error == cudaSuccess) static_cast<void>(call.release());  // run's now
        return error;
      },
      kind);
}

}  // namespace seqpar::cuda
