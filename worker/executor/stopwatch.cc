#include "worker/executor/stopwatch.h"

#include <algorithm>

#include "worker/executor/thread_times.h"

namespace seqpar {

PassFigures operator+(const PassFigures& a, const PassFigures& b) {
  PassFigures sum;
  for (double PassFigures::*const seconds :
       {&PassFigures::wall_seconds, &PassFigures::compute_seconds, &PassFigures::exposed_seconds,
        &PassFigures::hidden_seconds, &PassFigures::cpu_seconds, &PassFigures::attention_seconds,
        &PassFigures::product_seconds, &PassFigures::pointwise_seconds}) {
    sum.*seconds = a.*seconds + b.*seconds;
  }
  return sum;
}

Stopwatch::Stopwatch(const Stream* compute, const Stream* comm) : compute_(compute), comm_(comm) { Resume(); }

Stopwatch::Clocks Stopwatch::Read() const {
  return {std::chrono::steady_clock::now(), 0, compute_->times(), comm_->times()};
}

PassFigures Stopwatch::Since(const Clocks& begin) const {
  const Clocks now = Read();
  const auto busy = [&](WorkKind kind) { return now.compute.Busy(kind) - begin.compute.Busy(kind); };
  const double communicating = now.comm.busy_seconds - begin.comm.busy_seconds;
  PassFigures figures;
  figures.wall_seconds = std::chrono::duration<double>(now.time - begin.time).count();
  figures.compute_seconds = now.compute.busy_seconds - begin.compute.busy_seconds;
  figures.exposed_seconds = now.compute.wait_seconds - begin.compute.wait_seconds;
  figures.hidden_seconds = std::max(0.0, communicating - figures.exposed_seconds);
  figures.attention_seconds = busy(WorkKind::kAttention);
  figures.product_seconds = busy(WorkKind::kProduct);
  figures.pointwise_seconds = busy(WorkKind::kPointwise);
  return figures;
}

void Stopwatch::Resume() {
  Clocks begin = Read();
  begin.cpu = ComputeThreadSeconds();
  MutexLock lock(mutex_);
  begin_ = begin;
  running_ = true;
}

void Stopwatch::Pause() {
  const double cpu = ComputeThreadSeconds();
  MutexLock lock(mutex_);
  PassFigures since = Since(begin_);
  since.cpu_seconds = cpu - begin_.cpu;
  figures_ = figures_ + since;
  running_ = false;
}

PassFigures Stopwatch::figures() const {
  MutexLock lock(mutex_);
  return figures_;
}

PassFigures Stopwatch::Now() const {
  MutexLock lock(mutex_);
  if (!running_) return figures_;
  PassFigures since = Since(begin_);
  since.hidden_seconds = 0;
  return figures_ + since;
}

}  // namespace seqpar
