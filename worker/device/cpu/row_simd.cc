#include "worker/device/cpu/row_simd.h"

#include "worker/device/cpu/simd-dispatch.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/device/cpu/row_simd.cc"
#include "hwy/foreach_target.h"
// foreach_target.h has to come first.
#include "hwy/highway.h"
#include "worker/device/cpu/storage-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls fn(tag, i) for whole vectors of [0, n), then for the single numbers that are left.
template <typename Fn>
HWY_INLINE void ForEachVector(int64_t n, const Fn& fn) {
  const hn::ScalableTag<float> vector;
  const hn::CappedTag<float, 1> single;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(vector));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) fn(vector, i);
  for (; i < n; ++i) fn(single, i);
}

// A sum in a vector's lanes and, for the numbers left over, in one number.
struct Sum {
  hn::Vec<hn::ScalableTag<float>> lanes;
  hn::Vec<hn::CappedTag<float, 1>> rest;

  HWY_INLINE auto& Of(hn::ScalableTag<float>) { return lanes; }
#if HWY_TARGET != HWY_SCALAR  // where the two are one
  HWY_INLINE auto& Of(hn::CappedTag<float, 1>) { return rest; }
#endif
  HWY_INLINE float Total() const {
    return hn::GetLane(hn::SumOfLanes(hn::ScalableTag<float>(), lanes)) + hn::GetLane(rest);
  }
};
HWY_INLINE Sum NoSum() { return {hn::Zero(hn::ScalableTag<float>()), hn::Zero(hn::CappedTag<float, 1>())}; }

void Widen(const BF16* from, int64_t n, float* to) {
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR { StoreFloats(LoadFloats(d, from + i), d, to + i); });
}

void Narrow(const float* from, int64_t n, BF16* to) {
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR { StoreFloats(LoadFloats(d, from + i), d, to + i); });
}

template <typename T>
void AddRows(const T* a, const T* b, int64_t n, T* to) {
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR {
    StoreFloats(hn::Add(LoadFloats(d, a + i), LoadFloats(d, b + i)), d, to + i);
  });
}

float SumOf(const float* x, int64_t n) {
  Sum sum = NoSum();
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR {
    auto& s = sum.Of(d);
    s = hn::Add(s, hn::LoadU(d, x + i));
  });
  return sum.Total();
}

float SumOfSquares(const float* x, float center, int64_t n) {
  Sum sum = NoSum();
  ForEachVector(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto away = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, center));
    auto& s = sum.Of(d);
    s = hn::MulAdd(away, away, s);
  });
  return sum.Total();
}

// h of the norm.
template <typename D>
HWY_INLINE hn::Vec<D> Normalised(D d, const NormSpan& span, int64_t i) {
  return hn::Mul(hn::Sub(hn::LoadU(d, span.x + i), hn::Set(d, span.mean)),
                 hn::Set(d, span.inverse_deviation));
}

void Normalise(const NormSpan& span, const float* bias, float* to) {
  ForEachVector(span.n, [&](auto d, int64_t i) HWY_ATTR {
    const auto h = Normalised(d, span, i), weight = hn::LoadU(d, span.weight + i);
    hn::StoreU(bias == nullptr ? hn::Mul(h, weight) : hn::MulAdd(h, weight, hn::LoadU(d, bias + i)), d,
               to + i);
  });
}

GradientSums AddGradients(const NormSpan& span, const float* dy, float* weight_sums, float* bias_sums) {
  Sum sum_g = NoSum(), sum_gh = NoSum();
  ForEachVector(span.n, [&](auto d, int64_t i) HWY_ATTR {
    const auto h = Normalised(d, span, i), dys = hn::LoadU(d, dy + i);
    const auto g = hn::Mul(dys, hn::LoadU(d, span.weight + i));
    auto &of_g = sum_g.Of(d), &of_gh = sum_gh.Of(d);
    of_g = hn::Add(of_g, g);
    of_gh = hn::MulAdd(g, h, of_gh);
    hn::StoreU(hn::MulAdd(dys, h, hn::LoadU(d, weight_sums + i)), d, weight_sums + i);
    if (bias_sums != nullptr) hn::StoreU(hn::Add(dys, hn::LoadU(d, bias_sums + i)), d, bias_sums + i);
  });
  return {sum_g.Total(), sum_gh.Total()};
}

void NormGradient(const NormSpan& span, const float* dy, GradientSums means, const float* around, float* to) {
  ForEachVector(span.n, [&](auto d, int64_t i) HWY_ATTR {
    const auto inverse = hn::Set(d, span.inverse_deviation);
    const auto h = Normalised(d, span, i);
    const auto g = hn::Mul(hn::LoadU(d, dy + i), hn::LoadU(d, span.weight + i));
    const auto rest = hn::NegMulAdd(h, hn::Set(d, means.gh), hn::Sub(g, hn::Set(d, means.g)));
    hn::StoreU(
        around == nullptr ? hn::Mul(rest, inverse) : hn::MulAdd(rest, inverse, hn::LoadU(d, around + i)), d,
        to + i);
  });
}

template <typename T>
void Rotate(T* row, int64_t heads, int64_t half, const float* cosines, const float* sines, float direction) {
  for (int64_t head = 0; head < heads; ++head) {
    T *const low = row + 2 * half * head, *const high = low + half;
    ForEachVector(half, [&](auto d, int64_t i) HWY_ATTR {
      const auto a = LoadFloats(d, low + i), b = LoadFloats(d, high + i);
      const auto cosine = hn::LoadU(d, cosines + i);
      const auto sine = hn::Mul(hn::LoadU(d, sines + i), hn::Set(d, direction));
      StoreFloats(hn::NegMulAdd(b, sine, hn::Mul(a, cosine)), d, low + i);
      StoreFloats(hn::MulAdd(a, sine, hn::Mul(b, cosine)), d, high + i);
    });
  }
}

const RowSimd* GetRowSimd() {
  static const RowSimd simd{&Widen,        &Narrow,        &AddRows<float>, &AddRows<BF16>,
                            &SumOf,        &SumOfSquares,  &Normalise,      &AddGradients,
                            &NormGradient, &Rotate<float>, &Rotate<BF16>};
  return &simd;
}

}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqpar::cpu {
namespace {

HWY_EXPORT(GetRowSimd);

}  // namespace

const RowSimd& FindRowSimd(const std::string& name) {
  const RowSimd* named = SEQPAR_CHOOSE_SIMD(GetRowSimd, name);
  return named != nullptr ? *named : *HWY_STATIC_DISPATCH(GetRowSimd)();
}

}  // namespace seqpar::cpu
#endif  // HWY_ONCE
