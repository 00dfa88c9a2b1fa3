#include "worker/device/cpu/activation.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

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

float FloatOf(float value) { return value; }
float FloatOf(BF16 value) { return ToFloat(value); }
void Put(float value, float* to) { *to = value; }
void Put(float value, BF16* to) { *to = ToBF16(value); }

template <typename T>
T& Element(RowsOf<T> rows, int64_t row, int64_t col) {
  return rows.data[row * rows.ld + col];
}

template <ValueAndSlope (*kFunction)(float), typename T>
void Forward(RowsOf<const T> x, RowsOf<const T> up, int64_t rows, int64_t cols, RowsOf<T> y) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < cols; ++i) {
      const float up_i = up.data == nullptr ? 1 : FloatOf(Element(up, row, i));
      Put(kFunction(FloatOf(Element(x, row, i))).value * up_i, &Element(y, row, i));
    }
  }
}

template <ValueAndSlope (*kFunction)(float), typename T>
void Backward(RowsOf<const T> x, RowsOf<const T> up, RowsOf<const T> dy, int64_t rows, int64_t cols,
              RowsOf<T> dx, RowsOf<T> dup, RowsOf<T> y) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < cols; ++i) {
      const ValueAndSlope f = kFunction(FloatOf(Element(x, row, i)));
      const float dy_i = FloatOf(Element(dy, row, i));
      const float up_i = up.data == nullptr ? 1 : FloatOf(Element(up, row, i));
      Put(dy_i * up_i * f.slope, &Element(dx, row, i));
      if (up.data != nullptr) Put(dy_i * f.value, &Element(dup, row, i));
      if (y.data != nullptr) Put(f.value * up_i, &Element(y, row, i));
    }
  }
}

template <ValueAndSlope (*kFunction)(float)>
constexpr ActivationFunction Functions() {
  return {{&Forward<kFunction, float>, &Backward<kFunction, float>},
          {&Forward<kFunction, BF16>, &Backward<kFunction, BF16>}};
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

// From `row` on.
template <typename T>
RowsOf<T> RowsFrom(const Matrix* m, int64_t row) {
  if (m == nullptr) return {nullptr, 0};
  return {reinterpret_cast<T*>(m->At(row, 0)), m->ld};
}

bool AreAll(DType type, std::initializer_list<const Matrix*> matrices) {
  return std::all_of(matrices.begin(), matrices.end(),
                     [type](const Matrix* m) { return m == nullptr || m->dtype == type; });
}

template <typename T>
void ForwardRows(const ActivationOn<T>& function, const Matrix* gate, const Matrix& up, const Matrix& y,
                 int64_t begin, int64_t end) {
  const Matrix *x = gate == nullptr ? &up : gate, *times = gate == nullptr ? nullptr : &up;
  function.forward(RowsFrom<const T>(x, begin), RowsFrom<const T>(times, begin), end - begin, up.cols,
                   RowsFrom<T>(&y, begin));
}

template <typename T>
void BackwardRows(const ActivationOn<T>& function, const Matrix* gate, const Matrix& up, const Matrix& dy,
                  const Matrix* dgate, const Matrix& dup, const Matrix* y, int64_t begin, int64_t end) {
  const bool gated = gate != nullptr;
  const Matrix *x = gated ? gate : &up, *times = gated ? &up : nullptr;
  const Matrix *dx = gated ? dgate : &dup, *dtimes = gated ? &dup : nullptr;
  function.backward(RowsFrom<const T>(x, begin), RowsFrom<const T>(times, begin),
                    RowsFrom<const T>(&dy, begin), end - begin, up.cols, RowsFrom<T>(dx, begin),
                    RowsFrom<T>(dtimes, begin), RowsFrom<T>(y, begin));
}

// Matrices of both types: by way of float32 in pieces.
void ForwardMixed(const ActivationOn<float>& function, const RowSimd& simd, const Matrix* gate,
                  const Matrix& up, const Matrix& y, int64_t begin, int64_t end) {
  SpanBuffer gate_buffer, up_buffer, y_buffer;
  for (int64_t row = begin; row < end; ++row) {
    ForEachSpan(up.cols, [&](int64_t col, int64_t n) {
      const float* ups = simd.Read(up, row, col, n, up_buffer);
      const float* gates = gate == nullptr ? nullptr : simd.Read(*gate, row, col, n, gate_buffer);
      float* to = SpanTarget(y, row, col, y_buffer);
      function.forward({gates == nullptr ? ups : gates, 0}, {gates == nullptr ? nullptr : ups, 0}, 1, n,
                       {to, 0});
      simd.Store(y, row, col, n, to);
    });
  }
}

void BackwardMixed(const ActivationOn<float>& function, const RowSimd& simd, const Matrix* gate,
                   const Matrix& up, const Matrix& dy, const Matrix* dgate, const Matrix& dup,
                   const Matrix* y, int64_t begin, int64_t end) {
  SpanBuffer gate_buffer, up_buffer, dy_buffer, dgate_buffer, dup_buffer, y_buffer;
  for (int64_t row = begin; row < end; ++row) {
    ForEachSpan(up.cols, [&](int64_t col, int64_t n) {
      const float* ups = simd.Read(up, row, col, n, up_buffer);
      const float* dys = simd.Read(dy, row, col, n, dy_buffer);
      float* dups = SpanTarget(dup, row, col, dup_buffer);
      float* ys = y == nullptr ? nullptr : SpanTarget(*y, row, col, y_buffer);
      if (gate == nullptr) {
        function.backward({ups, 0}, {nullptr, 0}, {dys, 0}, 1, n, {dups, 0}, {nullptr, 0}, {ys, 0});
      } else {
        float* dgates = SpanTarget(*dgate, row, col, dgate_buffer);
        function.backward({simd.Read(*gate, row, col, n, gate_buffer), 0}, {ups, 0}, {dys, 0}, 1, n,
                          {dgates, 0}, {dups, 0}, {ys, 0});
        simd.Store(*dgate, row, col, n, dgates);
      }
      simd.Store(dup, row, col, n, dups);
      if (y != nullptr) simd.Store(*y, row, col, n, ys);
    });
  }
}

}  // namespace

const ActivationSimd& PlainActivations() {
  static const ActivationSimd plain{Functions<Gelu>(), Functions<GeluTanh>(), Functions<Silu>()};
  return plain;
}

void ActivationForward(const ActivationSimd& functions, const RowSimd& simd, ThreadPool& pool, MlpKind kind,
                       const Matrix* gate, const Matrix& up, const Matrix& y) {
  const ActivationFunction& function = FunctionOf(functions, kind);
  const bool f32 = AreAll(DType::kF32, {gate, &up, &y}), bf16 = AreAll(DType::kBF16, {gate, &up, &y});
  ParallelRows(pool, up.rows, up.cols * kCost, [&](int64_t begin, int64_t end) {
    if (f32) {
      ForwardRows(function.f32, gate, up, y, begin, end);
    } else if (bf16) {
      ForwardRows(function.bf16, gate, up, y, begin, end);
    } else {
      ForwardMixed(function.f32, simd, gate, up, y, begin, end);
    }
  });
}

void ActivationBackward(const ActivationSimd& functions, const RowSimd& simd, ThreadPool& pool, MlpKind kind,
                        const Matrix* gate, const Matrix& up, const Matrix& dy, const Matrix* dgate,
                        const Matrix& dup, const Matrix* y) {
  const ActivationFunction& function = FunctionOf(functions, kind);
  const bool f32 = AreAll(DType::kF32, {gate, &up, &dy, dgate, &dup, y});
  const bool bf16 = AreAll(DType::kBF16, {gate, &up, &dy, dgate, &dup, y});
  ParallelRows(pool, up.rows, up.cols * kCost, [&](int64_t begin, int64_t end) {
    if (f32) {
      BackwardRows(function.f32, gate, up, dy, dgate, dup, y, begin, end);
    } else if (bf16) {
      BackwardRows(function.bf16, gate, up, dy, dgate, dup, y, begin, end);
    } else {
      BackwardMixed(function.f32, simd, gate, up, dy, dgate, dup, y, begin, end);
    }
  });
}

}  // namespace seqpar::cpu
