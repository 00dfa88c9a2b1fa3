#include "worker/executor/measure_device.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/status.h"
#include "common/parallel/mask.h"

namespace seqpar {
namespace {

constexpr int kRounds = 3;
constexpr int64_t kProduct = 4096;
constexpr int64_t kTokens = 8192, kHeads = 16, kHeadDim = 128;
constexpr int64_t kCopyBytes = int64_t{256} << 20;

class Measurement {
 public:
  explicit Measurement(Device* device) : device_(device), stream_(device->CreateStream("measure")) {}

  // Zeros are faster than data: filled with numbers.
  absl::StatusOr<Matrix> New(DType type, int64_t rows, int64_t cols) {
    SEQPAR_ASSIGN_OR_RETURN(Buffer buffer, device_->Allocate(rows * cols * SizeOf(type), "a measurement"));
    const Matrix m(buffer.data(), type, rows, cols);
    memory_.push_back(std::move(buffer));
    std::vector<char> block(std::min<int64_t>(m.bytes(), int64_t{1} << 22));
    for (int64_t i = 0; i < static_cast<int64_t>(block.size()) / SizeOf(type); ++i) {
      const float value = static_cast<float>((i * 2654435761u >> 8 & 0xffff)) / 32768.0f - 1;
      if (type == DType::kF32) {
        reinterpret_cast<float*>(block.data())[i] = value;
      } else {
        reinterpret_cast<BF16*>(block.data())[i] = ToBF16(value);
      }
    }
    for (int64_t at = 0; at < m.bytes(); at += static_cast<int64_t>(block.size())) {
      device_->CopyFromHost(*stream_, block.data(), static_cast<char*>(m.data) + at,
                            std::min<int64_t>(static_cast<int64_t>(block.size()), m.bytes() - at));
    }
    SEQPAR_RETURN_IF_ERROR(stream_->Synchronize());
    return m;
  }
  void Clear() { memory_.clear(); }

  absl::StatusOr<double> Seconds(const std::function<void(Stream&)>& call) {
    double best = INFINITY;
    for (int round = -1; round < kRounds; ++round) {
      const double before = stream_->times().busy_seconds;
      call(*stream_);
      SEQPAR_RETURN_IF_ERROR(stream_->Synchronize());
      if (round >= 0) best = std::min(best, stream_->times().busy_seconds - before);
    }
    return std::max(best, 1e-9);
  }

  absl::Status Products(DeviceRates* rates) {
    SEQPAR_ASSIGN_OR_RETURN(const Matrix a, New(DType::kBF16, kProduct, kProduct));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix b, New(DType::kBF16, kProduct, kProduct));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix c, New(DType::kBF16, kProduct, kProduct));
    SEQPAR_ASSIGN_OR_RETURN(const double seconds, Seconds([&](Stream& s) {
                              device_->Gemm(s, a, false, b, true, c, false, nullptr);
                            }));
    rates->gemm_flops = 2.0 * kProduct * kProduct * kProduct / seconds;
    Clear();
    return absl::OkStatus();
  }

  absl::Status Attention(DeviceRates* rates) {
    const Mask mask(MaskKind::kCausal, kTokens);
    const TokenShare all({{0, kTokens, 1}});
    const auto ranges = std::make_shared<KeyRanges>(ComputeKeyRanges(mask, all, all));
    AttentionTile tile;
    tile.heads = MakeHeadRange(0, kHeads, 1);
    tile.head_dim = kHeadDim;
    tile.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
    tile.queries = tile.keys = kTokens;
    tile.ranges = ranges;
    tile.mask = &mask;
    tile.query_positions = tile.key_positions = all;
    const int64_t cols = kHeads * kHeadDim;
    for (Matrix* m : {&tile.q, &tile.k, &tile.v}) {
      SEQPAR_ASSIGN_OR_RETURN(*m, New(DType::kBF16, kTokens, cols));
    }
    SEQPAR_ASSIGN_OR_RETURN(const Matrix dout, New(DType::kBF16, kTokens, cols));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix out, New(DType::kF32, kTokens, cols));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix lse, New(DType::kF32, kTokens, kHeads));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix delta, New(DType::kF32, kTokens, kHeads));
    std::vector<Matrix> gradients(3);
    for (Matrix& m : gradients) {
      SEQPAR_ASSIGN_OR_RETURN(m, New(DType::kF32, kTokens, cols));
    }
    const double flops = 4.0 * ranges->pairs * kHeads * kHeadDim;
    SEQPAR_ASSIGN_OR_RETURN(const double forward,
                            Seconds([&](Stream& s) { device_->AttentionForward(s, tile, out, lse, true); }));
    SEQPAR_ASSIGN_OR_RETURN(const double backward, Seconds([&](Stream& s) {
                              device_->AttentionDelta(s, kHeadDim, dout, out, delta);
                              device_->AttentionBackward(s, tile, dout, lse, delta, gradients[0],
                                                         gradients[1], gradients[2]);
                            }));
    rates->attention_forward_flops = flops / forward;
    rates->attention_backward_flops = 2.5 * flops / backward;
    Clear();
    return absl::OkStatus();
  }

  absl::Status Copies(DeviceRates* rates) {
    SEQPAR_ASSIGN_OR_RETURN(const Matrix from, New(DType::kF32, kCopyBytes / 16384, 4096));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix to, New(DType::kF32, kCopyBytes / 16384, 4096));
    SEQPAR_ASSIGN_OR_RETURN(const double seconds, Seconds([&](Stream& s) { device_->Copy(s, from, to); }));
    rates->copy_bytes = static_cast<double>(kCopyBytes) / seconds;
    Clear();
    return absl::OkStatus();
  }

 private:
  Device* const device_;
  const std::unique_ptr<Stream> stream_;
  std::vector<Buffer> memory_;
};

}  // namespace

absl::StatusOr<DeviceRates> MeasureDeviceRates(Device& device) {
  Measurement measurement(&device);
  DeviceRates rates;
  SEQPAR_RETURN_IF_ERROR(measurement.Products(&rates));
  SEQPAR_RETURN_IF_ERROR(measurement.Attention(&rates));
  SEQPAR_RETURN_IF_ERROR(measurement.Copies(&rates));
  rates.peak_flops =
      std::max({rates.gemm_flops, rates.attention_forward_flops, rates.attention_backward_flops});
  return rates;
}

}  // namespace seqpar
