#include "worker/device/cpu/calibrate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/status.h"
#include "worker/device/cpu/peak.h"

namespace seqpar {
namespace {

constexpr double kSecondsEach = 0.1;  // for each of the rates
constexpr int64_t kGemmSize = 768;
constexpr int64_t kTokens = 768;                   // enough for the packing to weigh as little as in a job
constexpr int64_t kCopyBytes = int64_t{32} << 20;  // beyond the last level cache that one core can fill

// Memory of a float32 matrix that stays while rates are measured, filled with small numbers.
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

// `work` done in `enqueue`, per second: the best of the repetitions that fit the time, after one that warms
// up.
absl::StatusOr<double> RateOf(Stream& stream, double work, const std::function<void()>& enqueue) {
  using SteadyClock = std::chrono::steady_clock;
  const auto seconds_since = [](SteadyClock::time_point start) {
    return std::chrono::duration<double>(SteadyClock::now() - start).count();
  };
  enqueue();
  SEQPAR_RETURN_IF_ERROR(stream.Synchronize());
  double best = 0;
  const auto begin = SteadyClock::now();
  do {
    const auto start = SteadyClock::now();
    enqueue();
    SEQPAR_RETURN_IF_ERROR(stream.Synchronize());
    best = std::max(best, work / seconds_since(start));
  } while (seconds_since(begin) < kSecondsEach);
  return best;
}

absl::Status MeasureAttention(Device& device, Stream& stream, int head_dim, CpuRates* rates) {
  Operands operands(&device);
  AttentionTile tile;
  // Heads enough for every thread to have tiles of its own.
  const int heads = (device.info().threads + 3) / 4;
  tile.heads = HeadRange{0, heads, 0, heads};
  tile.head_dim = head_dim;
  tile.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)));
  tile.queries = tile.keys = kTokens;
  auto ranges = std::make_shared<KeyRanges>();
  ranges->lo.assign(kTokens, 0);
  ranges->hi.assign(kTokens, kTokens);
  tile.ranges = ranges;
  SEQPAR_ASSIGN_OR_RETURN(tile.q, operands.New(kTokens, int64_t{heads} * head_dim));
  SEQPAR_ASSIGN_OR_RETURN(tile.k, operands.New(kTokens, int64_t{heads} * head_dim));
  SEQPAR_ASSIGN_OR_RETURN(tile.v, operands.New(kTokens, int64_t{heads} * head_dim));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix dout, operands.New(kTokens, int64_t{heads} * head_dim));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix out, operands.New(kTokens, int64_t{heads} * head_dim));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix dq, operands.New(kTokens, int64_t{heads} * head_dim));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix dk, operands.New(kTokens, int64_t{heads} * head_dim));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix dv, operands.New(kTokens, int64_t{heads} * head_dim));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix lse, operands.New(kTokens, heads));
  SEQPAR_ASSIGN_OR_RETURN(const Matrix delta, operands.New(kTokens, heads));
  const double flops = 4.0 * kTokens * kTokens * head_dim * heads;
  SEQPAR_ASSIGN_OR_RETURN(rates->attention_forward_flops, RateOf(stream, flops, [&] {
                            device.AttentionForward(stream, tile, out, lse, true);
                          }));
  device.AttentionDelta(stream, head_dim, dout, out, delta);
  SEQPAR_ASSIGN_OR_RETURN(rates->attention_backward_flops, RateOf(stream, 2.5 * flops, [&] {
                            device.AttentionBackward(stream, tile, dout, lse, delta, dq, dk, dv);
                          }));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CpuRates> MeasureCpuRates(Device& device, int head_dim) {
  CpuRates rates;
  rates.peak_flops = MeasureFmaPeak(kSecondsEach);
  const auto stream = device.CreateStream("calibrate");
  {
    Operands operands(&device);
    const int64_t rows = kGemmSize * ((device.info().threads + 3) / 4);
    SEQPAR_ASSIGN_OR_RETURN(const Matrix a, operands.New(rows, kGemmSize));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix b, operands.New(kGemmSize, kGemmSize));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix c, operands.New(rows, kGemmSize));
    SEQPAR_ASSIGN_OR_RETURN(rates.gemm_flops, RateOf(*stream, 2.0 * rows * kGemmSize * kGemmSize, [&] {
                              device.Gemm(*stream, a, false, b, true, c, false, nullptr);
                            }));
  }
  SEQPAR_RETURN_IF_ERROR(MeasureAttention(device, *stream, head_dim, &rates));
  SEQPAR_ASSIGN_OR_RETURN(Buffer from, device.Allocate(kCopyBytes, "calibration"));
  SEQPAR_ASSIGN_OR_RETURN(Buffer to, device.Allocate(kCopyBytes, "calibration"));
  std::memset(from.data(), 1, kCopyBytes);
  SEQPAR_ASSIGN_OR_RETURN(rates.copy_bytes_per_second, RateOf(*stream, kCopyBytes, [&] {
                            device.CopyFromHost(*stream, from.data(), to.data(), kCopyBytes);
                          }));
  return rates;
}

}  // namespace seqpar
