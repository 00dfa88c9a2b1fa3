// A vector of float32, as wide as the target has.
// Included once for each target of Highway's foreach_target.h.
#if defined(SEQPAR_WORKER_DEVICE_CPU_VEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQPAR_WORKER_DEVICE_CPU_VEC_INL_H_
#undef SEQPAR_WORKER_DEVICE_CPU_VEC_INL_H_
#else
#define SEQPAR_WORKER_DEVICE_CPU_VEC_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
#if HWY_TARGET != HWY_SCALAR
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using Ints = hn::RebindToSigned<Floats>;
using Vec = hn::Vec<Floats>;
constexpr int kLanes = HWY_LANES(float);

HWY_INLINE Vec Load(const float* from) { return hn::Load(Floats(), from); }
HWY_INLINE void Store(Vec v, float* to) { hn::Store(v, Floats(), to); }
HWY_INLINE Vec Fill(float value) { return hn::Set(Floats(), value); }

// x as an integer and a fraction in [-0.5, 0.5], for |x| < 2^22.
struct Split {
  Vec fraction;
  hn::Vec<Ints> exponent;  // the integer where float32 has its exponent; what else the integer has is lost
};
HWY_INLINE Split SplitExponent(Vec x) {
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum.
  const Vec magic = Fill(12582912.0f);
  const Vec shifted = hn::Add(x, magic);
  return {hn::Sub(x, hn::Sub(shifted, magic)), hn::ShiftLeft<23>(hn::BitCast(Ints(), shifted))};
}
HWY_INLINE Vec Scale(Vec power, hn::Vec<Ints> exponent) {
  return hn::BitCast(Floats(), hn::Add(hn::BitCast(Ints(), power), exponent));
}

// 2^x to 1e-7 relative, NaN for NaN. REQUIRES: |x| <= 126.
HWY_INLINE Vec Exp2Within(Vec x) {
  const Split split = SplitExponent(x);
  Vec power = Fill(0.0013276472f);
  power = hn::MulAdd(power, split.fraction, Fill(0.0096755415f));
  power = hn::MulAdd(power, split.fraction, Fill(0.0555071328f));
  power = hn::MulAdd(power, split.fraction, Fill(0.240221197f));
  power = hn::MulAdd(power, split.fraction, Fill(0.693146967f));
  power = hn::MulAdd(power, split.fraction, Fill(1.0f));
  return Scale(power, split.exponent);
}

// 2^x to 1e-7 relative; 0 for x below -100, -infinity included, so that nothing here is ever denormal; NaN
// stays NaN. REQUIRES: x < 127.
HWY_INLINE Vec Exp2(Vec x) { return hn::IfThenZeroElse(hn::Lt(x, Fill(-100.0f)), Exp2Within(x)); }

#endif  // HWY_TARGET != HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
