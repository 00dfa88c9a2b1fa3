#include "worker/device/cpu/row_simd.h"

#include <type_traits>

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

using Whole = hn::ScalableTag<float>;
using Single = hn::CappedTag<float, 1>;
using WholeVec = hn::Vec<Whole>;

// Calls fn(tag, i) for whole vectors of [begin, n), then for the single numbers that are left.
template <typename Fn>
HWY_INLINE void ForEachVector(int64_t begin, int64_t n, const Fn& fn) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(Whole()));
  int64_t i = begin;
  for (; i + lanes <= n; i += lanes) fn(Whole(), i);
  for (; i < n; ++i) fn(Single(), i);
}

// to[i] = fn(tag, from[i] ...), in float32.
template <typename Fn, typename T, typename... From>
HWY_INLINE void Map(int64_t n, const Fn& fn, T* to, const From*... from) {
  const Whole d;
  const int64_t step = 2 * static_cast<int64_t>(hn::Lanes(d));
  const auto of_two = [&](auto... values) HWY_ATTR {
    return Two<WholeVec>{fn(Whole(), values.a...), fn(Whole(), values.b...)};
  };
  int64_t i = 0;
  for (; i + step <= n; i += step) StoreTwo(of_two(LoadTwo(d, from + i)...), d, to + i);
  ForEachVector(i, n, [&](auto tag, int64_t at) HWY_ATTR {
    StoreFloats(fn(tag, LoadFloats(tag, from + at)...), tag, to + at);
  });
}

// A sum in the lanes of four vectors, which do not wait for each other, and, for the numbers left over, in
// one number.
struct Sum {
  WholeVec lanes[4];
  hn::Vec<Single> rest;

  HWY_INLINE float Total() const {
    const Whole d;
    const auto all = hn::Add(hn::Add(lanes[0], lanes[1]), hn::Add(lanes[2], lanes[3]));
    return hn::GetLane(hn::SumOfLanes(d, all)) + hn::GetLane(rest);
  }
};
HWY_INLINE Sum NoSum() {
  const auto zero = hn::Zero(Whole());
  return {{zero, zero, zero, zero}, hn::Zero(Single())};
}

// The sum of fn(tag, so far, x[i]), which adds a term.
template <typename T, typename Fn>
HWY_INLINE float SumOver(const T* x, int64_t n, const Fn& fn) {
  const Whole d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  Sum sum = NoSum();
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto first = LoadTwo(d, x + i), second = LoadTwo(d, x + i + 2 * lanes);
    sum.lanes[0] = fn(d, sum.lanes[0], first.a);
    sum.lanes[1] = fn(d, sum.lanes[1], first.b);
    sum.lanes[2] = fn(d, sum.lanes[2], second.a);
    sum.lanes[3] = fn(d, sum.lanes[3], second.b);
  }
  for (; i + lanes <= n; i += lanes) sum.lanes[0] = fn(d, sum.lanes[0], LoadFloats(d, x + i));
  for (; i < n; ++i) sum.rest = fn(Single(), sum.rest, LoadFloats(Single(), x + i));
  return sum.Total();
}

void Widen(const BF16* from, int64_t n, float* to) {
  ForEachVector(0, n, [&](auto d, int64_t i) HWY_ATTR { StoreFloats(LoadFloats(d, from + i), d, to + i); });
}

void Narrow(const float* from, int64_t n, BF16* to) {
  ForEachVector(0, n, [&](auto d, int64_t i) HWY_ATTR { StoreFloats(LoadFloats(d, from + i), d, to + i); });
}

template <typename T>
void AddRows(const T* a, const T* b, int64_t n, T* to) {
  Map(
      n, [](auto, auto x, auto y) HWY_ATTR { return hn::Add(x, y); }, to, a, b);
}

template <typename T>
float SumOf(const T* x, int64_t n) {
  return SumOver(x, n, [](auto, auto sum, auto value) HWY_ATTR { return hn::Add(sum, value); });
}

template <typename T>
float SumOfSquares(const T* x, float center, int64_t n) {
  return SumOver(x, n, [center](auto d, auto sum, auto value) HWY_ATTR {
    const auto away = hn::Sub(value, hn::Set(d, center));
    return hn::MulAdd(away, away, sum);
  });
}

// h of the norm.
template <typename T, typename D>
HWY_INLINE hn::Vec<D> Normalised(D d, const NormSpan<T>& span, hn::Vec<D> x) {
  return hn::Mul(hn::Sub(x, hn::Set(d, span.mean)), hn::Set(d, span.inverse_deviation));
}

template <typename T>
void Normalise(const NormSpan<T>& span, const T* bias, T* to) {
  const NormSpan<T> s = span;
  if (bias == nullptr) {
    Map(
        s.n, [&](auto d, auto x, auto weight) HWY_ATTR { return hn::Mul(Normalised(d, s, x), weight); }, to,
        s.x, s.weight);
  } else {
    Map(
        s.n,
        [&](auto d, auto x, auto weight, auto plus)
            HWY_ATTR { return hn::MulAdd(Normalised(d, s, x), weight, plus); },
        to, s.x, s.weight, bias);
  }
}

template <typename T>
GradientSums AddGradients(const NormSpan<T>& span, const T* dy, float* weight_sums, float* bias_sums) {
  const NormSpan<T> s = span;
  Sum sum_g = NoSum(), sum_gh = NoSum();
  const auto add = [&](auto d, int64_t i, auto& of_g, auto& of_gh) HWY_ATTR {
    const auto h = Normalised(d, s, LoadFloats(d, s.x + i)), dys = LoadFloats(d, dy + i);
    const auto g = hn::Mul(dys, LoadFloats(d, s.weight + i));
    of_g = hn::Add(of_g, g);
    of_gh = hn::MulAdd(g, h, of_gh);
    hn::StoreU(hn::MulAdd(dys, h, hn::LoadU(d, weight_sums + i)), d, weight_sums + i);
    if (bias_sums != nullptr) hn::StoreU(hn::Add(dys, hn::LoadU(d, bias_sums + i)), d, bias_sums + i);
  };
  const Whole d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 2 * lanes <= s.n; i += 2 * lanes) {
    add(d, i, sum_g.lanes[0], sum_gh.lanes[0]);
    add(d, i + lanes, sum_g.lanes[1], sum_gh.lanes[1]);
  }
  for (; i + lanes <= s.n; i += lanes) add(d, i, sum_g.lanes[0], sum_gh.lanes[0]);
  for (; i < s.n; ++i) add(Single(), i, sum_g.rest, sum_gh.rest);
  return {sum_g.Total(), sum_gh.Total()};
}

template <typename T>
void NormGradient(const NormSpan<T>& span, const T* dy, GradientSums means, const T* around, T* to) {
  const NormSpan<T> s = span;
  const auto through = [&](auto d, auto x, auto dys, auto weight) HWY_ATTR {
    const auto h = Normalised(d, s, x), g = hn::Mul(dys, weight);
    return hn::NegMulAdd(h, hn::Set(d, means.gh), hn::Sub(g, hn::Set(d, means.g)));
  };
  if (around == nullptr) {
    Map(
        s.n,
        [&](auto d, auto x, auto dys, auto weight)
            HWY_ATTR { return hn::Mul(through(d, x, dys, weight), hn::Set(d, s.inverse_deviation)); },
        to, s.x, dy, s.weight);
  } else {
    Map(
        s.n,
        [&](auto d, auto x, auto dys, auto weight, auto plus) HWY_ATTR {
          return hn::MulAdd(through(d, x, dys, weight), hn::Set(d, s.inverse_deviation), plus);
        },
        to, s.x, dy, s.weight, around);
  }
}

// The order that LoadTwo has for T.
template <typename T, typename D>
HWY_INLINE Two<hn::Vec<D>> InOrderOf(D d, Two<hn::Vec<D>> values) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (std::is_same_v<T, BF16>) {
    return {hn::ConcatEven(d, values.b, values.a), hn::ConcatOdd(d, values.b, values.a)};
  }
#endif
  return values;
}

template <typename T>
void Rotate(T* row, int64_t heads, int64_t half, const float* cosines, const float* sines, float direction) {
  const Whole d;
  const int64_t step = 2 * static_cast<int64_t>(hn::Lanes(d));
  const auto low_of = [](auto a, auto b, auto cosine, auto sine)
                          HWY_ATTR { return hn::NegMulAdd(b, sine, hn::Mul(a, cosine)); };
  const auto high_of = [](auto a, auto b, auto cosine, auto sine)
                           HWY_ATTR { return hn::MulAdd(a, sine, hn::Mul(b, cosine)); };
  for (int64_t head = 0; head < heads; ++head) {
    T *const low = row + 2 * half * head, *const high = low + half;
    int64_t i = 0;
    for (; i + step <= half; i += step) {
      const auto a = LoadTwo(d, low + i), b = LoadTwo(d, high + i);
      const auto cosine = InOrderOf<T>(d, LoadTwo(d, cosines + i));
      auto sine = InOrderOf<T>(d, LoadTwo(d, sines + i));
      sine = {hn::Mul(sine.a, hn::Set(d, direction)), hn::Mul(sine.b, hn::Set(d, direction))};
      StoreTwo({low_of(a.a, b.a, cosine.a, sine.a), low_of(a.b, b.b, cosine.b, sine.b)}, d, low + i);
      StoreTwo({high_of(a.a, b.a, cosine.a, sine.a), high_of(a.b, b.b, cosine.b, sine.b)}, d, high + i);
    }
    ForEachVector(i, half, [&](auto tag, int64_t at) HWY_ATTR {
      const auto a = LoadFloats(tag, low + at), b = LoadFloats(tag, high + at);
      const auto cosine = hn::LoadU(tag, cosines + at);
      const auto sine = hn::Mul(hn::LoadU(tag, sines + at), hn::Set(tag, direction));
      StoreFloats(low_of(a, b, cosine, sine), tag, low + at);
      StoreFloats(high_of(a, b, cosine, sine), tag, high + at);
    });
  }
}

template <typename T>
constexpr NormOn<T> Norms() {
  return {&SumOf<T>, &SumOfSquares<T>, &Normalise<T>, &AddGradients<T>, &NormGradient<T>};
}

const RowSimd* GetRowSimd() {
  static const RowSimd simd{&Widen,         &Narrow,       &AddRows<float>, &AddRows<BF16>,
                            Norms<float>(), Norms<BF16>(), &Rotate<float>,  &Rotate<BF16>};
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
