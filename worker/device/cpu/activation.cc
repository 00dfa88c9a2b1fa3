#include "worker/device/cpu/activation.h"

#include <algorithm>
#include <cmath>

#include "common/base/check.h"
#include "worker/device/cpu/elementwise.h"

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
  const float square = std::min(x * x, 1e30f);  // finite, for where it meets a zero
  const float t = std::tanh(kSqrt2OverPi * x * (1 + kCubic * square));
  const float inner_slope = kSqrt2OverPi * (1 + 3 * kCubic * square);
  return {0.5f * x * (1 + t), 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * inner_slope};
}

ValueAndSlope Silu(float x) {
  const float sigmoid = 1 / (1 + std::exp(-x));
  return {x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))};
}

template <ValueAndSlope (*kFunction)(float)>
void Forward(const float* x, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = kFunction(x[i]).value * (up == nullptr ? 1 : up[i]);
}

template <ValueAndSlope (*kFunction)(float)>
void Backward(const float* x, const float* up, const float* dy, int64_t n, float* dx, float* dup) {
  for (int64_t i = 0; i < n; ++i) {
    const ValueAndSlope f = kFunction(x[i]);
    const float dy_i = dy[i], up_i = up == nullptr ? 1 : up[i];
    dx[i] = dy_i * up_i * f.slope;
    if (up != nullptr) dup[i] = dy_i * f.value;
  }
}

template <ValueAndSlope (*kFunction)(float)>
constexpr ActivationFunction Functions() {
  return {&Forward<kFunction>, &Backward<kFunction>};
}

const ActivationFunction& FunctionOf(const ActivationSimd& functions, MlpKind kind) {
  switch (kind) {
    case MlpKind::kGelu:
      return functions.gelu;
    case MlpKind::kGeluTanh:
      return functions.gelu_tanh;
    case MlpKind::kSwiglu:
      return functions.silu;
    case MlpKind::kNone:
      break;
  }
  SEQPAR_CHECK(false);
}

// Transcendental functions cost this many times what an addition does: smaller tasks are worth a thread.
constexpr int64_t kCost = 4;

}  // namespace

const ActivationSimd& PlainActivations() {
  static const ActivationSimd plain{Functions<Gelu>(), Functions<GeluTanh>(), Functions<Silu>()};
  return plain;
}

void ActivationForward(const ActivationSimd& functions, const RowSimd& simd, ThreadPool& pool, MlpKind kind,
                       const Matrix* gate, const Matrix& up, const Matrix& y) {
  const ActivationFunction& function = FunctionOf(functions, kind);
  ParallelRows(pool, up.rows, up.cols * kCost, [&](int64_t begin, int64_t end) {
    SpanBuffer gate_buffer, up_buffer, y_buffer;
    for (int64_t row = begin; row < end; ++row) {
      ForEachSpan(up.cols, [&](int64_t col, int64_t n) {
        const float* ups = simd.Read(up, row, col, n, up_buffer);
        float* to = SpanTarget(y, row, col, y_buffer);
        if (gate == nullptr) {
          function.forward(ups, nullptr, n, to);
        } else {
          function.forward(simd.Read(*gate, row, col, n, gate_buffer), ups, n, to);
        }
        simd.Store(y, row, col, n, to);
      });
    }
  });
}

void ActivationBackward(const ActivationSimd& functions, const RowSimd& simd, ThreadPool& pool, MlpKind kind,
                        const Matrix* gate, const Matrix& up, const Matrix& dy, const Matrix* dgate,
                        const Matrix& dup) {
  const ActivationFunction& function = FunctionOf(functions, kind);
  ParallelRows(pool, up.rows, up.cols * kCost, [&](int64_t begin, int64_t end) {
    SpanBuffer gate_buffer, up_buffer, dy_buffer, dgate_buffer, dup_buffer;
    for (int64_t row = begin; row < end; ++row) {
      ForEachSpan(up.cols, [&](int64_t col, int64_t n) {
        const float* ups = simd.Read(up, row, col, n, up_buffer);
        const float* dys = simd.Read(dy, row, col, n, dy_buffer);
        float* dups = SpanTarget(dup, row, col, dup_buffer);
        if (gate == nullptr) {
          function.backward(ups, nullptr, dys, n, dups, nullptr);
        } else {
          float* dgates = SpanTarget(*dgate, row, col, dgate_buffer);
          function.backward(simd.Read(*gate, row, col, n, gate_buffer), ups, dys, n, dgates, dups);
          simd.Store(*dgate, row, col, n, dgates);
        }
        simd.Store(dup, row, col, n, dups);
      });
    }
  });
}

}  // namespace seqpar::cpu
