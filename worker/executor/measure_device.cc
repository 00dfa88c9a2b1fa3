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
// Sizes grow until a call takes so long: a fast device is measured with what keeps all of it busy, a slow one
// in a second too.
constexpr double kLongEnough = 2e-3;
constexpr int64_t kProductsFrom = 256, kProductsTo = 8192;  // rows
constexpr int64_t kTokensFrom = 256, kTokensTo = 8192;
constexpr int64_t kHeads = 16, kUsualHeadDim = 128;
constexpr int64_t kHeadDims[] = {64, 128};
constexpr int64_t kCopyFrom = int64_t{4} << 20, kCopyTo = int64_t{256} << 20;  // bytes
constexpr int64_t kPointwiseFrom = 256, kPointwiseTo = 8192, kPointwiseCols = 4096;
constexpr int kSmallOperations = 64;

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

  // Square weights, and rows from an eighth of their width to twice it.
  //
  // seconds = rows * row_flops / rate + weights / weight_bytes: the many rows of a long sequence and the few
  // of a short one give both.
  absl::Status Products(DeviceRates* rates) {
    int64_t width = kProductsFrom;
    ProductTimes times;
    while (true) {
      SEQPAR_ASSIGN_OR_RETURN(times, TimeProducts(width));
      if (times.forward >= kLongEnough || width >= kProductsTo / 2) break;
      width *= 2;
    }
    const double row_flops = 2.0 * static_cast<double>(width) * static_cast<double>(width);
    const double all = 2 * static_cast<double>(width) * row_flops;
    const int64_t few = width / 8, more = 2 * width - few;  // rows
    const double row = (times.forward - times.few) / static_cast<double>(more);
    const double beside = std::max(times.few - static_cast<double>(few) * row, 1e-7);
    const double fastest = all / std::min({times.forward, times.inputs, times.weights});
    rates->peak_flops = fastest;
    rates->gemm_flops = row > 0 ? std::min(row_flops / row, 1.1 * fastest) : all / times.forward;
    rates->weight_bytes = static_cast<double>(width * width * SizeOf(DType::kBF16)) / beside;
    const auto rate_of = [&](double seconds) { return all / std::max(seconds - beside, seconds / 2); };
    rates->gemm_input_gradient_flops = rate_of(times.inputs);
    rates->gemm_weight_gradient_flops = rate_of(times.weights);
    return absl::OkStatus();
  }

  absl::Status Attention(int64_t head_dim, DeviceRates* rates) {
    AttentionRates one;
    one.head_dim = static_cast<int>(head_dim);
    for (int64_t tokens = kTokensFrom;; tokens *= 2) {
      SEQPAR_ASSIGN_OR_RETURN(const double forward, TimeAttention(DType::kBF16, tokens, head_dim, &one));
      if (forward >= kLongEnough || tokens >= kTokensTo) break;
    }
    rates->attention.push_back(one);
    if (head_dim == kUsualHeadDim) {
      rates->attention_forward_flops = one.forward_flops;
      rates->attention_backward_flops = one.backward_flops;
    }
    return absl::OkStatus();
  }

  // A forward product, and attention of the usual heads: what else float32 jobs do moves twice the bytes.
  absl::Status Float32(DeviceRates* rates) {
    for (int64_t width = kProductsFrom;; width *= 2) {
      SEQPAR_ASSIGN_OR_RETURN(const Matrix x, New(DType::kF32, width, width));
      SEQPAR_ASSIGN_OR_RETURN(const Matrix w, New(DType::kF32, width, width));
      SEQPAR_ASSIGN_OR_RETURN(const Matrix y, New(DType::kF32, width, width));
      SEQPAR_ASSIGN_OR_RETURN(const double seconds, Seconds([&](Stream& s) {
                                device_->Gemm(s, x, false, w, true, y, false, nullptr);
                              }));
      Clear();
      rates->float32_gemm_flops =
          2.0 * static_cast<double>(width * width) * static_cast<double>(width) / seconds;
      if (seconds >= kLongEnough || width >= kProductsTo / 2) break;
    }
    AttentionRates one;
    for (int64_t tokens = kTokensFrom;; tokens *= 2) {
      SEQPAR_ASSIGN_OR_RETURN(const double forward, TimeAttention(DType::kF32, tokens, kUsualHeadDim, &one));
      if (forward >= kLongEnough || tokens >= kTokensTo) break;
    }
    rates->float32_attention_forward_flops = one.forward_flops;
    rates->float32_attention_backward_flops = one.backward_flops;
    return absl::OkStatus();
  }

  // What a layer does to its activations beside products and attention, each as often as the others.
  absl::Status Pointwise(DeviceRates* rates) {
    for (int64_t rows = kPointwiseFrom;; rows *= 4) {
      SEQPAR_ASSIGN_OR_RETURN(const double seconds, TimePointwise(rows, rates));
      if (seconds >= kLongEnough || rows >= kPointwiseTo) return absl::OkStatus();
    }
  }

  absl::Status Copies(DeviceRates* rates) {
    for (int64_t bytes = kCopyFrom;; bytes *= 4) {
      SEQPAR_ASSIGN_OR_RETURN(const Matrix from, New(DType::kF32, bytes / 16384, 4096));
      SEQPAR_ASSIGN_OR_RETURN(const Matrix to, New(DType::kF32, bytes / 16384, 4096));
      SEQPAR_ASSIGN_OR_RETURN(const double seconds, Seconds([&](Stream& s) { device_->Copy(s, from, to); }));
      rates->copy_bytes = static_cast<double>(bytes) / seconds;
      Clear();
      if (seconds >= kLongEnough || bytes >= kCopyTo) return absl::OkStatus();
    }
  }

 private:
  struct ProductTimes {
    double forward = 0, few = 0, inputs = 0, weights = 0;  // seconds
  };

  absl::StatusOr<ProductTimes> TimeProducts(int64_t width) {
    SEQPAR_ASSIGN_OR_RETURN(const Matrix x, New(DType::kBF16, 2 * width, width));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix y, New(DType::kBF16, 2 * width, width));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix w, New(DType::kBF16, width, width));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix dw, New(DType::kF32, width, width));
    const Matrix few_x = x.Rows(0, width / 8), few_y = y.Rows(0, width / 8);
    ProductTimes times;
    SEQPAR_ASSIGN_OR_RETURN(
        times.forward, Seconds([&](Stream& s) { device_->Gemm(s, x, false, w, true, y, false, nullptr); }));
    SEQPAR_ASSIGN_OR_RETURN(times.few, Seconds([&](Stream& s) {
                              device_->Gemm(s, few_x, false, w, true, few_y, false, nullptr);
                            }));
    SEQPAR_ASSIGN_OR_RETURN(
        times.inputs, Seconds([&](Stream& s) { device_->Gemm(s, y, false, w, false, x, false, nullptr); }));
    SEQPAR_ASSIGN_OR_RETURN(
        times.weights, Seconds([&](Stream& s) { device_->Gemm(s, y, true, x, false, dw, true, nullptr); }));
    Clear();
    return times;
  }

  absl::StatusOr<double> TimePointwise(int64_t rows, DeviceRates* rates) {
    std::vector<Matrix> m(3);
    for (Matrix& each : m) {
      SEQPAR_ASSIGN_OR_RETURN(each, New(DType::kBF16, rows, kPointwiseCols));
    }
    SEQPAR_ASSIGN_OR_RETURN(const Matrix weight, New(DType::kBF16, 1, kPointwiseCols));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix sums, New(DType::kF32, 1, kPointwiseCols));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix stats, New(DType::kF32, rows, 2));
    float* const statistics = static_cast<float*>(stats.data);
    SEQPAR_ASSIGN_OR_RETURN(const double seconds, Seconds([&](Stream& s) {
                              device_->NormForward(s, NormKind::kRmsNorm, m[0], weight, nullptr, 1e-5f, m[1],
                                                   statistics);
                              device_->NormBackward(s, NormKind::kRmsNorm, m[0], weight, statistics, m[1],
                                                    &m[0], m[2], static_cast<float*>(sums.data), nullptr);
                              device_->ActivationForward(s, MlpKind::kSwiglu, &m[0], m[1], m[2]);
                              device_->Add(s, m[0], m[1], m[2]);
                            }));
    constexpr double kMatrices = 2 + 4 + 3 + 3;  // read or written
    rates->pointwise_bytes = kMatrices * static_cast<double>(m[0].bytes()) / seconds;
    SEQPAR_ASSIGN_OR_RETURN(const double small, Seconds([&](Stream& s) {
                              for (int i = 0; i < kSmallOperations; ++i) {
                                device_->Add(s, m[0].Rows(0, 1), m[1].Rows(0, 1), m[2].Rows(0, 1));
                              }
                            }));
    rates->operation_seconds = small / kSmallOperations;
    Clear();
    return seconds;
  }

  // Of a causal call; seconds of its forward pass.
  absl::StatusOr<double> TimeAttention(DType type, int64_t tokens, int64_t head_dim, AttentionRates* rates) {
    const Mask mask(MaskKind::kCausal, tokens);
    const TokenShare all({{0, tokens, 1}});
    const auto ranges = std::make_shared<KeyRanges>(ComputeKeyRanges(mask, all, all));
    AttentionTile tile;
    tile.heads = MakeHeadRange(0, kHeads, 1);
    tile.head_dim = static_cast<int>(head_dim);
    tile.scale = 1 / std::sqrt(static_cast<float>(head_dim));
    tile.queries = tile.keys = tokens;
    tile.ranges = ranges;
    tile.mask = &mask;
    tile.query_positions = tile.key_positions = all;
    const int64_t cols = kHeads * head_dim;
    for (Matrix* m : {&tile.q, &tile.k, &tile.v}) {
      SEQPAR_ASSIGN_OR_RETURN(*m, New(type, tokens, cols));
    }
    SEQPAR_ASSIGN_OR_RETURN(const Matrix dout, New(type, tokens, cols));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix out, New(DType::kF32, tokens, cols));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix lse, New(DType::kF32, tokens, kHeads));
    SEQPAR_ASSIGN_OR_RETURN(const Matrix delta, New(DType::kF32, tokens, kHeads));
    std::vector<Matrix> gradients(3);
    for (Matrix& m : gradients) {
      SEQPAR_ASSIGN_OR_RETURN(m, New(DType::kF32, tokens, cols));
    }
    const double flops = 4.0 * ranges->pairs * kHeads * static_cast<double>(head_dim);
    SEQPAR_ASSIGN_OR_RETURN(const double forward,
                            Seconds([&](Stream& s) { device_->AttentionForward(s, tile, out, lse, true); }));
    SEQPAR_ASSIGN_OR_RETURN(const double backward, Seconds([&](Stream& s) {
                              device_->AttentionDelta(s, tile.head_dim, dout, out, delta);
                              device_->AttentionBackward(s, tile, dout, lse, delta, gradients[0],
                                                         gradients[1], gradients[2]);
                            }));
    rates->forward_flops = flops / forward;
    rates->backward_flops = 2.5 * flops / backward;
    Clear();
    return forward;
  }

  Device* const device_;
  const std::unique_ptr<Stream> stream_;
  std::vector<Buffer> memory_;
};

}  // namespace

absl::StatusOr<DeviceRates> MeasureDeviceRates(Device& device) {
  Measurement measurement(&device);
  DeviceRates rates;
  SEQPAR_RETURN_IF_ERROR(measurement.Products(&rates));
  for (const int64_t head_dim : kHeadDims) {
    SEQPAR_RETURN_IF_ERROR(measurement.Attention(head_dim, &rates));
  }
  SEQPAR_RETURN_IF_ERROR(measurement.Float32(&rates));
  SEQPAR_RETURN_IF_ERROR(measurement.Pointwise(&rates));
  SEQPAR_RETURN_IF_ERROR(measurement.Copies(&rates));
  for (const AttentionRates& one : rates.attention) {
    rates.peak_flops = std::max({rates.peak_flops, one.forward_flops, one.backward_flops});
  }
  return rates;
}

}  // namespace seqpar
