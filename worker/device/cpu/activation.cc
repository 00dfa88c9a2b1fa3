#include "worker/device/cpu/activation.h"

#include <cmath>

#include "worker/device/cpu/elementwise.h"
#include "worker/device/cpu/spans.h"

namespace seqpar::cpu {
namespace {

constexpr float kInverseSqrt2 = 0.70710678118654752f;
constexpr float kInverseSqrt2Pi = 0.39894228040143268f;  // 1 / sqrt(2 pi)
// gelu_tanh(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
constexpr float kSqrt2OverPi = 0.79788456080286536f;
constexpr float kCubic = 0.044715f;

struct ValueAndSlope {
  float value;
  float slope;
};

// x Phi(x), and Phi(x) + x phi(x). erfc keeps the left tail's digits, which 1 + erf would cancel.
ValueAndSlope Gelu(float x) {
  const float below = 0.5f * std::erfc(-x * kInverseSqrt2);
  return {x * below, below + x * kInverseSqrt2Pi * std::exp(-0.5f * x * x)};
}

ValueAndSlope GeluTanh(float x) {
  const float t = std::tanh(kSqrt2OverPi * (x + kCubic * x * x * x));
  const float inner_slope = kSqrt2OverPi * (1 + 3 * kCubic * x * x);
  return {0.5f * x * (1 + t), 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * inner_slope};
}

ValueAndSlope Silu(float x) {
  const float sigmoid = 1 / (1 + std::exp(-x));
  return {x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))};
}

ValueAndSlope Activate(MlpKind kind, float x) {
  switch (kind) {
    case MlpKind::kGelu:
      return Gelu(x);
    case MlpKind::kGeluTanh:
      return GeluTanh(x);
    case MlpKind::kSwiglu:
      return Silu(x);
    case MlpKind::kNone:
      break;
  }
  return {x, 1};
}

// Transcendental functions cost this many times what an addition does: smaller tasks are worth a thread.
constexpr int64_t kCost = 8;

}  // namespace

void ActivationForward(ThreadPool& pool, MlpKind kind, const Matrix* gate, const Matrix& up,
                       const Matrix& y) {
  ParallelRows(pool, up.rows, up.cols * kCost, [&](int64_t begin, int64_t end) {
    SpanBuffer gate_buffer, up_buffer, y_buffer;
    for (int64_t row = begin; row < end; ++row) {
      ForEachSpan(up.cols, [&](int64_t col, int64_t n) {
        const float* ups = ReadSpan(up, row, col, n, up_buffer);
        float* to = SpanTarget(y, row, col, y_buffer);
        if (gate != nullptr) {
          const float* gates = ReadSpan(*gate, row, col, n, gate_buffer);
          for (int64_t i = 0; i < n; ++i) to[i] = Activate(kind, gates[i]).value * ups[i];
        } else {
          for (int64_t i = 0; i < n; ++i) to[i] = Activate(kind, ups[i]).value;
        }
        StoreSpan(y, row, col, n, to);
      });
    }
  });
}

void ActivationBackward(ThreadPool& pool, MlpKind kind, const Matrix* gate, const Matrix& up,
                        const Matrix& dy, const Matrix* dgate, const Matrix& dup) {
  ParallelRows(pool, up.rows, up.cols * kCost, [&](int64_t begin, int64_t end) {
    SpanBuffer gate_buffer, up_buffer, dy_buffer, dgate_buffer, dup_buffer;
    for (int64_t row = begin; row < end; ++row) {
      ForEachSpan(up.cols, [&](int64_t col, int64_t n) {
        const float* ups = ReadSpan(up, row, col, n, up_buffer);
        const float* dys = ReadSpan(dy, row, col, n, dy_buffer);
        float* dups = SpanTarget(dup, row, col, dup_buffer);
        if (gate != nullptr) {
          const float* gates = ReadSpan(*gate, row, col, n, gate_buffer);
          float* dgates = SpanTarget(*dgate, row, col, dgate_buffer);
          for (int64_t i = 0; i < n; ++i) {
            const ValueAndSlope activated = Activate(kind, gates[i]);
            const float dy_i = dys[i], up_i = ups[i];
            dgates[i] = dy_i * up_i * activated.slope;
            dups[i] = dy_i * activated.value;
          }
          StoreSpan(*dgate, row, col, n, dgates);
        } else {
          for (int64_t i = 0; i < n; ++i) dups[i] = dys[i] * Activate(kind, ups[i]).slope;
        }
        StoreSpan(dup, row, col, n, dups);
      });
    }
  });
}

}  // namespace seqpar::cpu
