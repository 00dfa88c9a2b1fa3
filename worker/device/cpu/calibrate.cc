#include "worker/device/cpu/calibrate.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/status.h"
#include "worker/device/cpu/peak.h"

namespace seqpar {
namespace {

constexpr double kSecondsEach = 0.012;  // for each measurement, at least
constexpr int kRepetitionsMin = 4;
constexpr double kPeakSeconds = 0.06;
// Of attention's two sizes. A call of fewer tokens has costs of its own, which would be taken for those of
// rows and leave pairs to run at the peak.
constexpr int64_t kLongTokens = 1024, kShortTokens = 256;
constexpr int64_t kWidth = 512, kRows = 512, kFewRows = 16;  // of products
constexpr int64_t kPointwiseRows = 2048, kPointwiseCols = 512;
constexpr int64_t kCopyBytes = int64_t{16} << 20;  // beyond the second level cache
// A virtual machine may have given its free memory back to its host: some of it is twenty times as slow to
// touch as the rest, and a job meets both.
constexpr int64_t kFreshBytes = int64_t{8} << 20, kFreshBytesMin = int64_t{64} << 20,
                  kFreshBytesMax = int64_t{256} << 20;
constexpr double kFreshSeconds = 0.1;
constexpr int kSmallOperations = 64;
constexpr int kUsualHeadDim = 128;

// Memory of float32 matrices that stays while rates are measured, filled with small numbers.
class Operands {
 public:
  explicit Operands(Device* device) : device_(device) {}
  absl::StatusOr<Matrix> New(int64_t rows, int64_t cols) {
    SEQPAR_ASSIGN_OR_RETURN(Buffer buffer,
                            device_->Allocate(rows * cols * int64_t{sizeof(float)}, "calibration"));
    float* values = static_cast<float*>(buffer.data());
    for (int64_t i = 0; i < rows * cols; ++i) values[i] = static_cast<float>(i % 7) * 0.125f - 0.375f;
    buffers_.push_back(std::move(buffer));
    return Matrix(values, DType::kF32, rows, cols);
  }

 private:
  Device* device_;
  std::vector<Buffer> buffers_;
};

double SecondsOn(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class Bench {
 public:
  Bench(Device* device, const CpuCalibration& how)
      : device_(device), how_(how), stream_(device->CreateStream("calibrate")) {
    stream_->HostFunction(WorkKind::kOther, [this] {
      const bool known = pthread_getcpuclockid(pthread_self(), &stream_clock_) == 0;
      return known ? absl::OkStatus() : absl::InternalError("a thread without a clock of its CPU time");
    });
    stream_->Synchronize().IgnoreError();  // a failure stays with the stream
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Device& device() const { return *device_; }
  Stream& stream() const { return *stream_; }
  int threads() const { return device_->info().threads; }

  // Seconds of what `enqueue` enqueues: the lower quartile of the repetitions that fit the time, after one
  // that warms up. The best is a moment that jobs do not see, the mean is the neighbours'.
  absl::StatusOr<double> Seconds(const std::function<void()>& enqueue) {
    SEQPAR_RETURN_IF_ERROR(Meet());
    enqueue();
    SEQPAR_RETURN_IF_ERROR(stream_->Synchronize());
    std::vector<double> seconds;
    const double begin = SecondsOn(CLOCK_MONOTONIC);
    do {
      const double start = Now();
      enqueue();
      SEQPAR_RETURN_IF_ERROR(stream_->Synchronize());
      seconds.push_back(Now() - start);
    } while (seconds.size() < kRepetitionsMin || SecondsOn(CLOCK_MONOTONIC) - begin < kSecondsEach);
    const auto quartile = seconds.begin() + static_cast<int64_t>(seconds.size()) / 4;
    std::nth_element(seconds.begin(), quartile, seconds.end());
    return std::max(*quartile, 1e-9);
  }

  // Begins together with the other slots.
  absl::Status Meet() const { return how_.together ? how_.together() : absl::OkStatus(); }

  // Of the clock that measurements go by; while nothing is enqueued.
  double Now() const {
    if (!how_.by_cpu_time) return SecondsOn(CLOCK_MONOTONIC);
    if (threads() > 1) return SecondsOn(CLOCK_PROCESS_CPUTIME_ID) / threads();
    return SecondsOn(CLOCK_THREAD_CPUTIME_ID) + SecondsOn(stream_clock_);
  }

 private:
  Device* const device_;
  const CpuCalibration& how_;
  clockid_t stream_clock_ = CLOCK_THREAD_CPUTIME_ID;  // of the stream's thread
  const std::unique_ptr<Stream> stream_;
};

// Forward and backward of square tiles, one head for every thread.
class AttentionBench {
 public:
  static absl::StatusOr<AttentionBench> Create(Bench* bench, int head_dim) {
    AttentionBench made(bench, head_dim);
    const int64_t cols = int64_t{made.heads()} * head_dim;
    for (Matrix* m :
         {&made.q_, &made.k_, &made.v_, &made.dout_, &made.out_, &made.dq_, &made.dk_, &made.dv_}) {
      SEQPAR_ASSIGN_OR_RETURN(*m, made.operands_.New(kLongTokens, cols));
    }
    for (Matrix* m : {&made.lse_, &made.delta_}) {
      SEQPAR_ASSIGN_OR_RETURN(*m, made.operands_.New(kLongTokens, made.heads()));
    }
    return absl::StatusOr<AttentionBench>(std::move(made));
  }

  struct Times {
    double forward = 0, backward = 0;  // seconds of a head
  };
  absl::StatusOr<Times> Measure(int64_t n, bool causal) {
    AttentionTile tile;
    tile.heads = HeadRange{0, heads(), 0, heads()};
    tile.head_dim = head_dim_;
    tile.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim_)));
    tile.queries = tile.keys = n;
    auto ranges = std::make_shared<KeyRanges>();
    ranges->lo.assign(n, 0);
    for (int64_t i = 0; i < n; ++i) ranges->hi.push_back(static_cast<int32_t>(causal ? i + 1 : n));
    tile.ranges = ranges;
    tile.q = q_.Rows(0, n);
    tile.k = k_.Rows(0, n);
    tile.v = v_.Rows(0, n);
    Device& device = bench_->device();
    Stream& stream = bench_->stream();
    const Matrix out = out_.Rows(0, n), lse = lse_.Rows(0, n), delta = delta_.Rows(0, n);
    const Matrix dout = dout_.Rows(0, n), dq = dq_.Rows(0, n), dk = dk_.Rows(0, n), dv = dv_.Rows(0, n);
    Times times;
    SEQPAR_ASSIGN_OR_RETURN(times.forward,
                            bench_->Seconds([&] { device.AttentionForward(stream, tile, out, lse, true); }));
    device.AttentionDelta(stream, head_dim_, dout, out, delta);
    SEQPAR_ASSIGN_OR_RETURN(times.backward, bench_->Seconds([&] {
      device.AttentionBackward(stream, tile, dout, lse, delta, dq, dk, dv);
    }));
    return times;
  }

 private:
  AttentionBench(Bench* bench, int head_dim)
      : bench_(bench), head_dim_(head_dim), operands_(&bench->device()) {}
  // Alike for all threads, so that a head takes as long as the call.
  int heads() const { return bench_->threads(); }

  Bench* bench_;
  int head_dim_;
  Operands operands_;
  Matrix q_, k_, v_, dout_, out_, dq_, dk_, dv_, lse_, delta_;
};

struct Fit {
  double pair = 0, row = 0, edge = 0;  // seconds; all heads of the device at once
};

// From a long and a short full call and a long causal one. A row or an edge that seems to cost less than
// nothing is noise, and so is a pair that seems to take less than `least`.
Fit FitTimes(double full, double few, double causal, double least) {
  constexpr double kLong = kLongTokens, kShort = kShortTokens;
  Fit fit;
  // full = L L pair + 2 L row, few = S S pair + 2 S row
  fit.row = std::max(0.0, (few * kLong / kShort - full * kShort / kLong) / (2 * kLong - 2 * kShort));
  fit.pair = (full - 2 * kLong * fit.row) / (kLong * kLong);
  if (fit.pair < least) {
    fit.pair = std::min(least, full / (kLong * kLong));
    fit.row = (full - kLong * kLong * fit.pair) / (2 * kLong);
  }
  const double pairs = kLong * (kLong + 1) / 2;
  fit.edge = std::max(0.0, (causal - pairs * fit.pair - 2 * kLong * fit.row) / kLong);
  return fit;
}

absl::Status MeasureAttention(Bench* bench, int head_dim, DeviceRates* rates) {
  SEQPAR_ASSIGN_OR_RETURN(AttentionBench attention, AttentionBench::Create(bench, head_dim));
  SEQPAR_ASSIGN_OR_RETURN(const auto full, attention.Measure(kLongTokens, false));
  SEQPAR_ASSIGN_OR_RETURN(const auto few, attention.Measure(kShortTokens, false));
  SEQPAR_ASSIGN_OR_RETURN(const auto causal, attention.Measure(kLongTokens, true));
  // A call of so many heads takes as long as one head on one thread: what a head costs the device is a part.
  const double heads = bench->threads();
  const double pair_flops = 4.0 * head_dim * heads;
  const Fit forward = FitTimes(full.forward, few.forward, causal.forward, pair_flops / rates->peak_flops);
  const Fit backward =
      FitTimes(full.backward, few.backward, causal.backward, 2.5 * pair_flops / rates->peak_flops);
  AttentionRates one;
  one.head_dim = head_dim;
  one.forward_flops = pair_flops / forward.pair;
  one.backward_flops = 2.5 * pair_flops / backward.pair;
  one.forward_row = forward.row / heads;
  one.backward_row = backward.row / heads;
  one.forward_edge = forward.edge / heads;
  one.backward_edge = backward.edge / heads;
  rates->attention.push_back(one);
  return absl::OkStatus();
}

// Rows * threads, so that every thread has as many.
absl::Status MeasureProducts(Bench* bench, DeviceRates* rates) {
  Operands operands(&bench->device());
  Device& device = bench->device();
  Stream& stream = bench->stream();
  const int64_t rows = kRows * bench->threads();
  SEQPAR_ASSIGN_OR_RETURN(const Matrix x, operands.New(rows, kWidth));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix y, operands.New(rows, kWidth));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix weight, operands.New(kWidth, kWidth));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix gradient, operands.New(kWidth, kWidth));
  SEQPAR_ASSIGN_OR_RETURN(const double forward, bench->Seconds([&] {
    device.Gemm(stream, x, false, weight, true, y, false, nullptr);
  }));
  SEQPAR_ASSIGN_OR_RETURN(const double few, bench->Seconds([&] {
    device.Gemm(stream, x.Rows(0, kFewRows), false, weight, true, y.Rows(0, kFewRows), false, nullptr);
  }));
  SEQPAR_ASSIGN_OR_RETURN(const double inputs, bench->Seconds([&] {
    device.Gemm(stream, y, false, weight, false, x, false, nullptr);
  }));
  SEQPAR_ASSIGN_OR_RETURN(const double weights, bench->Seconds([&] {
    device.Gemm(stream, y, true, x, false, gradient, true, nullptr);
  }));
  const double row_flops = 2.0 * kWidth * kWidth, bytes = 4.0 * kWidth * kWidth;
  // forward = rows * row_flops / rate + bytes / weight_bytes, and the same with few rows.
  const double row = (forward - few) / static_cast<double>(rows - kFewRows);
  const double beside = std::max(few - kFewRows * row, 1e-7);
  const double all = static_cast<double>(rows) * row_flops;
  rates->gemm_flops = row > 0 ? std::min(row_flops / row, rates->peak_flops) : all / forward;
  rates->weight_bytes = bytes / beside;
  const auto rate_of = [&](double seconds) { return all / std::max(seconds - beside, seconds / 2); };
  rates->gemm_input_gradient_flops = rate_of(inputs);
  rates->gemm_weight_gradient_flops = rate_of(weights);
  return absl::OkStatus();
}

// What a layer does to its activations beside products and attention, each as often as the others.
absl::Status MeasurePointwise(Bench* bench, DeviceRates* rates) {
  Operands operands(&bench->device());
  Device& device = bench->device();
  Stream& stream = bench->stream();
  SEQPAR_ASSIGN_OR_RETURN(const Matrix x, operands.New(kPointwiseRows, kPointwiseCols));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix y, operands.New(kPointwiseRows, kPointwiseCols));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix z, operands.New(kPointwiseRows, kPointwiseCols));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix weight, operands.New(1, kPointwiseCols));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix sums, operands.New(1, kPointwiseCols));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix stats, operands.New(kPointwiseRows, 2));
  float* const statistics = static_cast<float*>(stats.data);
  SEQPAR_ASSIGN_OR_RETURN(const double seconds, bench->Seconds([&] {
    device.NormForward(stream, NormKind::kRmsNorm, x, weight, nullptr, 1e-5f, y, statistics);
    device.NormBackward(stream, NormKind::kRmsNorm, x, weight, statistics, y, &x, z,
                        static_cast<float*>(sums.data), nullptr);
    device.ActivationForward(stream, MlpKind::kSwiglu, &x, y, z);
    device.Add(stream, x, y, z);
  }));
  constexpr double kMatrices = 2 + 4 + 3 + 3;  // read or written
  rates->pointwise_bytes = kMatrices * static_cast<double>(x.bytes()) / seconds;

  const Matrix one = x.Rows(0, 1), other = y.Rows(0, 1), sum = z.Rows(0, 1);
  SEQPAR_ASSIGN_OR_RETURN(const double small, bench->Seconds([&] {
    for (int i = 0; i < kSmallOperations; ++i) device.Add(stream, one, other, sum);
  }));
  rates->operation_seconds = small / kSmallOperations;
  return absl::OkStatus();
}

// The mean of all that is touched, unlike other rates. Before anything else: what was freed is kept by the
// device, and not new the next time.
absl::Status MeasureFirstTouch(Bench* bench, DeviceRates* rates) {
  const int64_t limit = bench->device().info().memory_bytes;
  const int64_t most = limit == 0 ? kFreshBytesMax : std::clamp(limit / 4, kFreshBytesMin, kFreshBytesMax);
  SEQPAR_RETURN_IF_ERROR(bench->Meet());
  std::vector<Buffer> fresh;
  int64_t bytes = 0;
  double seconds = 0;
  while (bytes < kFreshBytesMin || (bytes < most && seconds < kFreshSeconds)) {
    SEQPAR_ASSIGN_OR_RETURN(Buffer block, bench->device().Allocate(kFreshBytes, "calibration"));
    const double start = bench->Now();
    bench->device().Zero(bench->stream(), block.data(), kFreshBytes);
    SEQPAR_RETURN_IF_ERROR(bench->stream().Synchronize());
    seconds += bench->Now() - start;
    bytes += kFreshBytes;
    fresh.push_back(std::move(block));
  }
  rates->touch_bytes = static_cast<double>(bytes) / std::max(seconds, 1e-9);
  return absl::OkStatus();
}

absl::Status MeasureCopies(Bench* bench, DeviceRates* rates) {
  SEQPAR_ASSIGN_OR_RETURN(const Buffer from, bench->device().Allocate(kCopyBytes, "calibration"));
  SEQPAR_ASSIGN_OR_RETURN(const Buffer to, bench->device().Allocate(kCopyBytes, "calibration"));
  std::memset(from.data(), 1, kCopyBytes);
  SEQPAR_ASSIGN_OR_RETURN(const double seconds, bench->Seconds([&] {
    bench->device().CopyFromHost(bench->stream(), from.data(), to.data(), kCopyBytes);
  }));
  rates->copy_bytes = static_cast<double>(kCopyBytes) / seconds;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DeviceRates> MeasureCpuRates(Device& device, const CpuCalibration& how) {
  DeviceRates rates;
  rates.peak_flops = device.info().threads * MeasureFmaPeak(kPeakSeconds);
  Bench bench(&device, how);
  SEQPAR_RETURN_IF_ERROR(MeasureFirstTouch(&bench, &rates));
  SEQPAR_RETURN_IF_ERROR(MeasureProducts(&bench, &rates));
  for (int head_dim : how.head_dims) SEQPAR_RETURN_IF_ERROR(MeasureAttention(&bench, head_dim, &rates));
  SEQPAR_RETURN_IF_ERROR(MeasurePointwise(&bench, &rates));
  SEQPAR_RETURN_IF_ERROR(MeasureCopies(&bench, &rates));
  // What is said where no head dimension is named: of the one nearest to most models'.
  const auto usual =
      std::min_element(rates.attention.begin(), rates.attention.end(), [](const auto& a, const auto& b) {
        return std::abs(a.head_dim - kUsualHeadDim) < std::abs(b.head_dim - kUsualHeadDim);
      });
  rates.attention_forward_flops = usual->forward_flops;
  rates.attention_backward_flops = usual->backward_flops;
  return rates;
}

}  // namespace seqpar
