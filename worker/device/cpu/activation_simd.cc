#include "worker/device/cpu/activation_simd.h"

#include <algorithm>
#include <type_traits>

#include "worker/device/cpu/simd-dispatch.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/device/cpu/activation_simd.cc"
#include "hwy/foreach_target.h"
// foreach_target.h has to come first.
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "worker/device/cpu/panel-inl.h"
#include "worker/device/cpu/storage-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

const ActivationSimd* GetActivationSimd() { return nullptr; }

#else
namespace hn = hwy::HWY_NAMESPACE;

struct Activated {
  Vec value, slope;
};

// NaN stays NaN. x86's maximum and minimum are their second operand where one is NaN, others' the number.
HWY_INLINE Vec AtLeast(float bound, Vec x) {
#if HWY_ARCH_X86
  return hn::Max(Fill(bound), x);
#else
  return hn::IfThenElse(hn::Lt(x, Fill(bound)), Fill(bound), x);
#endif
}
HWY_INLINE Vec AtMost(float bound, Vec x) {
#if HWY_ARCH_X86
  return hn::Min(Fill(bound), x);
#else
  return hn::IfThenElse(hn::Lt(Fill(bound), x), Fill(bound), x);
#endif
}

// The functions that activations are made of, as exact as numbers of type T need them: bfloat16 rounds the
// result by up to 2^-9 of it.
template <typename T>
struct Functions;

template <>
struct Functions<float> {
  // 2^x. REQUIRES: |x| <= 126.
  static HWY_INLINE Vec Exp2(Vec x) { return Exp2Within(x); }

  // 1 / x for x in [1, 2^125], to 2e-7 relative: a division of wide vectors costs as much as all the rest.
  static HWY_INLINE Vec Inverse(Vec x) {
#if HWY_ARCH_X86  // elsewhere the estimate has too few digits
    const Vec estimate = hn::ApproximateReciprocal(x);
    return hn::MulAdd(estimate, hn::NegMulAdd(x, estimate, Fill(1.0f)), estimate);
#else
    return hn::Div(Fill(1.0f), x);
#endif
  }

  // Phi(-x) e^(x^2 / 2) / t as a polynomial in t = 1 / (1 + kTailScale x). Weighted by what multiplies it, it
  // is off by 5e-8 of the larger of the result and 1e-1.
  static constexpr float kTailScale = 0.28f;
  static HWY_INLINE Vec Tail(Vec t) {
    Vec sum = Fill(-0.107131734f);
    sum = hn::MulAdd(sum, t, Fill(0.395306796f));
    sum = hn::MulAdd(sum, t, Fill(-0.245858818f));
    sum = hn::MulAdd(sum, t, Fill(0.276097208f));
    sum = hn::MulAdd(sum, t, Fill(0.0646028295f));
    return hn::MulAdd(sum, t, Fill(0.116983689f));
  }
};

// All to 1e-4 relative, which is 2^-13.
template <>
struct Functions<BF16> {
  static HWY_INLINE Vec Exp2(Vec x) {
    const Split split = SplitExponent(x);
    Vec power = Fill(0.0550089329f);
    power = hn::MulAdd(power, split.fraction, Fill(0.242210984f));
    power = hn::MulAdd(power, split.fraction, Fill(0.693282902f));
    power = hn::MulAdd(power, split.fraction, Fill(1.0f));
    return Scale(power, split.exponent);
  }

  static HWY_INLINE Vec Inverse(Vec x) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL  // elsewhere the estimate has too few digits
    return hn::ApproximateReciprocal(x);
#else
    return Functions<float>::Inverse(x);
#endif
  }
};

// sum of c[i] x^(kTerms - 1 - i), two terms at a time: half as many operations that wait for one another.
template <int kTerms>
HWY_INLINE Vec Polynomial(const float (&c)[kTerms], Vec x, Vec square) {
  constexpr int kFirst = 2 - kTerms % 2;
  Vec sum = kFirst == 1 ? Fill(c[0]) : hn::MulAdd(Fill(c[0]), x, Fill(c[1]));
  HWY_UNROLL(4)
  for (int i = kFirst; i < kTerms; i += 2) {
    sum = hn::MulAdd(sum, square, hn::MulAdd(Fill(c[i]), x, Fill(c[i + 1])));
  }
  return sum;
}

// What a gelu f(x) = max(x, 0) - z tail(z) of bfloat16 is made of, z = |x|: tail(z) = kPower(z)^-8 is Phi(-z)
// or its approximation by tanh, and f'(-z) = tail(z) kSlope(z). So it takes no exponential. Minimax fits of
// both to z = 5.6; beyond, both go on to zero.
struct GeluFits {  // f to 2e-5 of the larger of f and 1e-1, f' to 1e-4
  static constexpr float kPower[] = {1.238318e-4f,  -2.05767652e-4f, 0.00193619649f, 0.0083949526f,
                                     0.0493216366f, 0.10867963f,     1.09050773f};
  static constexpr float kSlope[] = {-0.00137585491f, 0.0181792988f, -0.105122347f,
                                     -0.639498806f,   -0.797266855f, 1.0f};
};
struct GeluTanhFits {  // 5e-5, 2e-4
  static constexpr float kPower[] = {2.9056057e-4f, -8.25215987e-4f, 0.00304144477f, 0.00712873733f,
                                     0.0498701975f, 0.108591329f,    1.09050773f};
  static constexpr float kSlope[] = {0.00248499762f, -0.024994351f, 0.0721897266f, -0.155091453f,
                                     -0.616132992f,  -0.800945006f, 1.0f};
};
template <typename Fits>
HWY_INLINE Activated GeluOfBF16(Vec x) {
  const Vec z = AtMost(12, hn::Abs(x));  // finite, for where it meets a tail of zero
  const Vec square = hn::Mul(z, z), root = Polynomial(Fits::kPower, z, square);
  const Vec root_2 = hn::Mul(root, root), root_4 = hn::Mul(root_2, root_2);
  const Vec tail = Functions<BF16>::Inverse(hn::Mul(root_4, root_4));
  const Vec left_slope = hn::Mul(tail, Polynomial(Fits::kSlope, z, square));
  return {hn::NegMulAdd(z, tail, AtLeast(0, x)),
          hn::IfNegativeThenElse(x, left_slope, hn::Sub(Fill(1.0f), left_slope))};
}

// x within [-limit, infinity), and within [-limit, limit]; NaN stays NaN. An activation is 0 below and its
// slope 0 or 1 beyond, and the exponentials stay finite and larger than 0.
struct Limited {
  Vec above, within;
};
HWY_INLINE Limited Limit(Vec x, float limit) {
  const Vec above = AtLeast(-limit, x);
  return {above, AtMost(limit, above)};
}

// s = 1 / (1 + e), the sigmoid of -ln e, and 1 - s with all its digits.
struct Sigmoid {
  Vec s, one_less_s;
};
template <typename T>
HWY_INLINE Sigmoid SigmoidOf(Vec e) {
  const Vec s = Functions<T>::Inverse(hn::Add(e, Fill(1.0f)));
  return {s, hn::Mul(e, s)};
}

// x s, with slope s + x s (1 - s) = s (1 + x (1 - s)), for s = sigmoid(x).
struct Silu {
  template <typename T>
  static HWY_INLINE Activated Of(Vec x) {
    const Limited limited = Limit(x, 86);
    const Sigmoid sigmoid = SigmoidOf<T>(Functions<T>::Exp2(hn::Mul(limited.within, Fill(-1.44269504f))));
    const Vec slope_over_s = hn::MulAdd(limited.within, sigmoid.one_less_s, Fill(1.0f));
    return {hn::Mul(limited.above, sigmoid.s), hn::Mul(sigmoid.s, slope_over_s)};
  }
};

// x / 2 (1 + tanh(u)) = x s for s = sigmoid(2 u) and u = sqrt(2 / pi) (x + 0.044715 x^3); its slope is s (1 +
// x (1 - s) (2 u)').
struct GeluTanh {
  template <typename T>
  static HWY_INLINE Activated Of(Vec x) {
    if constexpr (std::is_same_v<T, BF16>) {
      return GeluOfBF16<GeluTanhFits>(x);
    } else {
      constexpr float kTwiceRoot = 1.59576912f, kLog2E = 1.44269504f, kCubic = 0.044715f;  // 2 sqrt(2 / pi)
      const Limited limited = Limit(x, 9.5f);
      const Vec square = hn::Mul(limited.within, limited.within);
      const Vec over_x = hn::MulAdd(square, Fill(-kLog2E * kTwiceRoot * kCubic), Fill(-kLog2E * kTwiceRoot));
      const Sigmoid sigmoid = SigmoidOf<T>(Functions<T>::Exp2(hn::Mul(limited.within, over_x)));
      const Vec slope_of_two_u = hn::MulAdd(square, Fill(3 * kCubic * kTwiceRoot), Fill(kTwiceRoot));
      const Vec slope_over_s =
          hn::MulAdd(hn::Mul(limited.within, slope_of_two_u), sigmoid.one_less_s, Fill(1.0f));
      return {hn::Mul(limited.above, sigmoid.s), hn::Mul(sigmoid.s, slope_over_s)};
    }
  }
};

// x Phi(x) = max(x, 0) - |x| Phi(-|x|), with slope Phi(x) + x phi(x), from Phi(-|x|), which keeps the left
// tail's digits.
struct Gelu {
  template <typename T>
  static HWY_INLINE Activated Of(Vec x) {
    if constexpr (std::is_same_v<T, BF16>) {
      return GeluOfBF16<GeluFits>(x);
    } else {
      const Vec z = AtMost(12, hn::Abs(x));  // beyond, all that Phi(-|x|) is a part of is zero
      const Vec bell = Functions<T>::Exp2(hn::Mul(z, hn::Mul(z, Fill(-0.721347520f))));
      const Vec t = Functions<T>::Inverse(hn::MulAdd(z, Fill(Functions<T>::kTailScale), Fill(1.0f)));
      const Vec tail = hn::Mul(hn::Mul(bell, t), Functions<T>::Tail(t));
      const Vec left_slope = hn::NegMulAdd(hn::Mul(z, Fill(0.398942280f)), bell, tail);
      return {hn::NegMulAdd(z, tail, AtLeast(0, x)),
              hn::IfNegativeThenElse(x, left_slope, hn::Sub(Fill(1.0f), left_slope))};
    }
  }
};

constexpr int64_t kStep = 2 * kLanes;

template <typename Function, typename T>
HWY_INLINE void ForwardStep(const T* x, const T* up, T* y) {
  const Floats d;
  const Two<Vec> xs = LoadTwo(d, x);
  Two<Vec> ys{Function::template Of<T>(xs.a).value, Function::template Of<T>(xs.b).value};
  if (up != nullptr) {
    const Two<Vec> ups = LoadTwo(d, up);
    ys = {hn::Mul(ys.a, ups.a), hn::Mul(ys.b, ups.b)};
  }
  StoreTwoOfBF16(ys, d, y);
}

template <typename Function, typename T>
HWY_INLINE void BackwardStep(const T* x, const T* up, const T* dy, T* dx, T* dup, T* y) {
  const Floats d;
  const Two<Vec> xs = LoadTwo(d, x), dys = LoadTwo(d, dy);
  const Activated a = Function::template Of<T>(xs.a), b = Function::template Of<T>(xs.b);
  Two<Vec> dvalues = dys, ys{a.value, b.value};
  if (up != nullptr) {
    const Two<Vec> ups = LoadTwo(d, up);
    dvalues = {hn::Mul(dys.a, ups.a), hn::Mul(dys.b, ups.b)};
    ys = {hn::Mul(a.value, ups.a), hn::Mul(b.value, ups.b)};
    StoreTwoOfBF16({hn::Mul(dys.a, a.value), hn::Mul(dys.b, b.value)}, d, dup);
  }
  StoreTwoOfBF16({hn::Mul(dvalues.a, a.slope), hn::Mul(dvalues.b, b.slope)}, d, dx);
  if (y != nullptr) StoreTwoOfBF16(ys, d, y);
}

// Fewer numbers than a step has, padded with zeros.
template <typename T>
struct Part {
  HWY_ALIGN T values[kStep] = {};
  Part(const T* from, int64_t n) {
    if (from != nullptr) std::copy_n(from, n, values);
  }
};

// What comes a row later. A projection's gate and up are halves of rows: their ends break the processor's own
// streams, which costs two fifths of the rate of operands that lie apart.
template <typename T>
HWY_INLINE void PrefetchNextRow(const T* at, int64_t ld) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < kStep; i += kLine) hwy::Prefetch(at + ld + i);
}

// The rows' pointers at a column, null for what is absent.
template <typename T>
HWY_INLINE T* At(RowsOf<T> rows, int64_t row, int64_t col) {
  return rows.data == nullptr ? nullptr : rows.data + row * rows.ld + col;
}

template <typename Function, typename T>
void Forward(RowsOf<const T> x, RowsOf<const T> up, int64_t rows, int64_t cols, RowsOf<T> y) {
  const bool gated = up.data != nullptr;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t i = 0;
    const T *const xs = At(x, row, 0), *const ups = At(up, row, 0);
    T* const ys = At(y, row, 0);
    for (; i + kStep <= cols; i += kStep) {
      PrefetchNextRow(xs + i, x.ld);
      if (gated) PrefetchNextRow(ups + i, up.ld);
      ForwardStep<Function>(xs + i, gated ? ups + i : nullptr, ys + i);
    }
    const int64_t rest = cols - i;
    if (rest == 0) continue;
    Part<T> last_x(xs + i, rest), last_up(gated ? ups + i : nullptr, rest), last_y(nullptr, 0);
    ForwardStep<Function, T>(last_x.values, gated ? last_up.values : nullptr, last_y.values);
    std::copy_n(last_y.values, rest, ys + i);
  }
}

template <typename Function, typename T>
void Backward(RowsOf<const T> x, RowsOf<const T> up, RowsOf<const T> dy, int64_t rows, int64_t cols,
              RowsOf<T> dx, RowsOf<T> dup, RowsOf<T> y) {
  const bool gated = up.data != nullptr, activated = y.data != nullptr;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t i = 0;
    const T *const xs = At(x, row, 0), *const ups = At(up, row, 0), *const dys = At(dy, row, 0);
    T *const dxs = At(dx, row, 0), *const dups = At(dup, row, 0), *const ys = At(y, row, 0);
    for (; i + kStep <= cols; i += kStep) {
      PrefetchNextRow(xs + i, x.ld);
      if (gated) PrefetchNextRow(ups + i, up.ld);
      PrefetchNextRow(dys + i, dy.ld);
      BackwardStep<Function>(xs + i, gated ? ups + i : nullptr, dys + i, dxs + i, gated ? dups + i : nullptr,
                             activated ? ys + i : nullptr);
    }
    const int64_t rest = cols - i;
    if (rest == 0) continue;
    Part<T> last_x(xs + i, rest), last_up(gated ? ups + i : nullptr, rest), last_dy(dys + i, rest);
    Part<T> last_y(nullptr, 0);
    BackwardStep<Function, T>(last_x.values, gated ? last_up.values : nullptr, last_dy.values, last_x.values,
                              last_up.values, last_y.values);
    std::copy_n(last_x.values, rest, dxs + i);
    if (gated) std::copy_n(last_up.values, rest, dups + i);
    if (activated) std::copy_n(last_y.values, rest, ys + i);
  }
}

template <typename Function>
constexpr ActivationFunction TableOf() {
  return {{&Forward<Function, float>, &Backward<Function, float>},
          {&Forward<Function, BF16>, &Backward<Function, BF16>}};
}

const ActivationSimd* GetActivationSimd() {
  static const ActivationSimd simd{TableOf<Gelu>(), TableOf<GeluTanh>(), TableOf<Silu>()};
  return &simd;
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqpar::cpu {
namespace {

HWY_EXPORT(GetActivationSimd);

}  // namespace

const ActivationSimd* FindActivationSimd(const std::string& name) {
  return SEQPAR_CHOOSE_SIMD(GetActivationSimd, name);
}

}  // namespace seqpar::cpu
#endif  // HWY_ONCE
