#include "worker/device/cpu/activation_simd.h"

#include <algorithm>

#include "worker/device/cpu/simd-dispatch.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/device/cpu/activation_simd.cc"
#include "hwy/foreach_target.h"
// foreach_target.h has to come first.
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

// e^x for x <= 0, to 2e-7 relative. x log2(e) is taken in two parts, since its rounding would grow with x.
HWY_INLINE Vec ExpOfNegative(Vec x) {
  const Vec log2_e = Fill(1.44269502f), rest_of_log2_e = Fill(1.92596303e-8f), ln_2 = Fill(0.693147181f);
  x = hn::Max(Fill(-200.0f), x);  // where the result has long been 0 and the parts below are still finite
  const Vec product = hn::Mul(x, log2_e);
  const Vec rest = hn::MulAdd(x, rest_of_log2_e, hn::MulSub(x, log2_e, product));
  const Vec power = Exp2(product);
  return hn::MulAdd(power, hn::Mul(rest, ln_2), power);
}

// 1 / x for x in [1, 2], to 2e-7 relative: a division of wide vectors costs as much as all the rest.
HWY_INLINE Vec Inverse(Vec x) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL  // elsewhere the estimate has too few digits
  const Vec estimate = hn::ApproximateReciprocal(x);
  return hn::Mul(estimate, hn::NegMulAdd(x, estimate, Fill(2.0f)));
#else
  return hn::Div(Fill(1.0f), x);
#endif
}

// 1 / (1 + e^-x), from e^-|x| so that nothing overflows or cancels. The exponential is off by |x| 1e-7 of
// itself, which falls faster than |x| grows.
HWY_INLINE Vec Sigmoid(Vec x) {
  const Vec one = Fill(1.0f);
  const Vec e = Exp2(hn::Mul(hn::Abs(x), Fill(-1.44269504f)));
  const Vec numerator = hn::IfThenElse(hn::Lt(x, hn::Zero(Floats())), e, one);
  return hn::Mul(numerator, Inverse(hn::Add(one, e)));
}

// x s, with slope s + x s (1 - s) = s (1 + x (1 - s)), for s = sigmoid(x).
struct Silu {
  static HWY_INLINE Activated Of(Vec x) {
    const Vec one = Fill(1.0f);
    const Vec s = Sigmoid(x);
    return {hn::Mul(x, s), hn::Mul(s, hn::MulAdd(x, hn::Sub(one, s), one))};
  }
};

// x / 2 (1 + tanh(u)) = x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {
  static HWY_INLINE Activated Of(Vec x) {
    const Vec one = Fill(1.0f);
    const Vec twice_root = Fill(1.59576912f);                // 2 sqrt(2 / pi)
    const Vec square = hn::Min(hn::Mul(x, x), Fill(1e30f));  // finite, for where it meets a zero
    const Vec two_u = hn::Mul(hn::Mul(twice_root, x), hn::MulAdd(square, Fill(0.044715f), one));
    const Vec s = Sigmoid(two_u);
    const Vec slope_of_two_u = hn::Mul(twice_root, hn::MulAdd(square, Fill(3 * 0.044715f), one));
    const Vec value = hn::Mul(x, s);
    return {value, hn::MulAdd(hn::Mul(value, hn::Sub(one, s)), slope_of_two_u, s)};
  }
};

// erfc(z) e^(z^2) / t for t = 1 / (1 + z / 2) and 0 <= z <= 8.45, to 1.2e-7: a polynomial in t, mapped to
// [-1, 1], interpolated in Chebyshev points.
HWY_INLINE Vec ScaledErfcOverT(Vec t) {
  const Vec s = hn::Mul(hn::Sub(t, Fill(0.59569378f)), Fill(1 / 0.40430622f));
  Vec sum = Fill(-4.07388725e-05f);
  sum = hn::MulAdd(sum, s, Fill(5.42563794e-06f));
  sum = hn::MulAdd(sum, s, Fill(0.000488791789f));
  sum = hn::MulAdd(sum, s, Fill(-0.000452387583f));
  sum = hn::MulAdd(sum, s, Fill(-0.00552733848f));
  sum = hn::MulAdd(sum, s, Fill(0.00477882568f));
  sum = hn::MulAdd(sum, s, Fill(0.0965346768f));
  sum = hn::MulAdd(sum, s, Fill(0.322433382f));
  return hn::MulAdd(sum, s, Fill(0.581779361f));
}

// x Phi(x), with slope Phi(x) + x phi(x), from Phi(-|x|) = erfc(|x| / sqrt(2)) / 2, which keeps the left
// tail's digits.
struct Gelu {
  static HWY_INLINE Activated Of(Vec x) {
    const Vec one = Fill(1.0f), half = Fill(0.5f);
    // Beyond 8.45 e^(-z^2) is zero here.
    const Vec z = hn::Min(hn::Mul(hn::Abs(x), Fill(0.707106781f)), Fill(8.45f));
    const Vec bell = ExpOfNegative(hn::Mul(hn::Mul(x, x), Fill(-0.5f)));
    const Vec t = hn::Div(one, hn::MulAdd(z, half, one));
    const Vec tail = hn::Mul(hn::Mul(half, t), hn::Mul(bell, ScaledErfcOverT(t)));
    const Vec below = hn::IfThenElse(hn::Lt(x, hn::Zero(Floats())), tail, hn::Sub(one, tail));
    return {hn::Mul(x, below), hn::MulAdd(hn::Mul(x, bell), Fill(0.398942280f), below)};
  }
};

template <typename Function, typename T>
HWY_INLINE void ForwardVector(const T* x, const T* up, T* y) {
  const Vec value = Function::Of(LoadFloats(Floats(), x)).value;
  StoreFloats(up == nullptr ? value : hn::Mul(value, LoadFloats(Floats(), up)), Floats(), y);
}

template <typename Function, typename T>
HWY_INLINE void BackwardVector(const T* x, const T* up, const T* dy, T* dx, T* dup) {
  const Activated f = Function::Of(LoadFloats(Floats(), x));
  const Vec dys = LoadFloats(Floats(), dy);
  if (up == nullptr) {
    StoreFloats(hn::Mul(dys, f.slope), Floats(), dx);
    return;
  }
  const Vec ups = LoadFloats(Floats(), up);
  StoreFloats(hn::Mul(hn::Mul(dys, ups), f.slope), Floats(), dx);
  StoreFloats(hn::Mul(dys, f.value), Floats(), dup);
}

// Fewer numbers than a vector has, padded with zeros.
template <typename T>
struct Part {
  HWY_ALIGN T values[kLanes] = {};
  Part(const T* from, int64_t n) {
    if (from != nullptr) std::copy_n(from, n, values);
  }
};

template <typename Function, typename T>
void Forward(const T* x, const T* up, int64_t n, T* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    ForwardVector<Function>(x + i, up == nullptr ? nullptr : up + i, y + i);
  }
  if (i == n) return;
  Part<T> xs(x + i, n - i), ups(up == nullptr ? nullptr : up + i, n - i), ys(nullptr, 0);
  ForwardVector<Function, T>(xs.values, up == nullptr ? nullptr : ups.values, ys.values);
  std::copy_n(ys.values, n - i, y + i);
}

template <typename Function, typename T>
void Backward(const T* x, const T* up, const T* dy, int64_t n, T* dx, T* dup) {
  int64_t i = 0;
  const bool gated = up != nullptr;
  for (; i + kLanes <= n; i += kLanes) {
    BackwardVector<Function>(x + i, gated ? up + i : nullptr, dy + i, dx + i, gated ? dup + i : nullptr);
  }
  if (i == n) return;
  Part<T> xs(x + i, n - i), ups(gated ? up + i : nullptr, n - i), dys(dy + i, n - i);
  BackwardVector<Function, T>(xs.values, gated ? ups.values : nullptr, dys.values, xs.values, ups.values);
  std::copy_n(xs.values, n - i, dx + i);
  if (gated) std::copy_n(ups.values, n - i, dup + i);
}

template <typename Function>
constexpr ActivationFunction Functions() {
  return {{&Forward<Function, float>, &Backward<Function, float>},
          {&Forward<Function, BF16>, &Backward<Function, BF16>}};
}

const ActivationSimd* GetActivationSimd() {
  static const ActivationSimd simd{Functions<Gelu>(), Functions<GeluTanh>(), Functions<Silu>()};
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
