#include "worker/device/cpu/row_simd.h"

#include <type_traits>

#include "worker/device/cpu/simd-dispatch.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/device/cpu/row_simd.cc"
#include "hwy/foreach_target.h"
// foreach_target.h has to come first.
#include "hwy/highway.h"
#include "worker/device/cpu/norm-inl.h"
#include "worker/device/cpu/row-inl.h"
#include "worker/device/cpu/storage-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

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
  return {&MomentsOf<T>, &SumOfSquares<T>, &Normalise<T>, &AddGradients<T>, &OrderSums<T>, &NormGradient<T>};
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
