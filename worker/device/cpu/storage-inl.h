// Vectors of float32 from and to memory of float32 or bfloat16.
// Included once for each target of Highway's foreach_target.h.
#if defined(SEQPAR_WORKER_DEVICE_CPU_STORAGE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQPAR_WORKER_DEVICE_CPU_STORAGE_INL_H_
#undef SEQPAR_WORKER_DEVICE_CPU_STORAGE_INL_H_
#else
#define SEQPAR_WORKER_DEVICE_CPU_STORAGE_INL_H_
#endif

#include "common/tensor/dtype.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename D>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const float* from) {
  return hn::LoadU(d, from);
}

template <typename D>
HWY_INLINE hn::Vec<D> LoadFloats(D d, const BF16* from) {
  const hn::Rebind<uint32_t, D> wide;
  const hn::Rebind<uint16_t, D> half;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(half, &from->bits))));
}

template <typename D>
HWY_INLINE void StoreFloats(hn::Vec<D> value, D d, float* to) {
  hn::StoreU(value, d, to);
}

// Numbers whose upper halves are those of bfloat16, to nearest even: half a unit less one is added, and one
// more where the last bit kept is odd. Where one operation does And and Or that bit sets the last of all
// instead, so that what is half a unit is more than that.
template <typename D>
HWY_INLINE hn::Vec<D> RoundedUpperHalf(D d, hn::Vec<D> u) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  return hn::Add(hn::OrAnd(u, hn::ShiftRight<16>(u), hn::Set(d, 1)), hn::Set(d, 0x7fff));
#else
  return hn::Add(u, hn::Add(hn::And(hn::ShiftRight<16>(u), hn::Set(d, 1)), hn::Set(d, 0x7fff)));
#endif
}

// As ToBF16. (The processor's own conversion takes denormals for zeros.)
template <typename D>
HWY_INLINE void StoreFloats(hn::Vec<D> value, D d, BF16* to) {
  const hn::Rebind<uint32_t, D> wide;
  const hn::Rebind<int32_t, D> wide_signed;
  const hn::Rebind<uint16_t, D> half;
  const auto u = hn::BitCast(wide, value);
  const auto rounded = RoundedUpperHalf(wide, u);
  const auto quiet = hn::Or(u, hn::Set(wide, 0x400000));
  const auto chosen = hn::IfThenElse(hn::IsNaN(value), hn::BitCast(d, quiet), hn::BitCast(d, rounded));
  const auto kept = hn::ShiftRight<16>(hn::BitCast(wide, chosen));
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL  // one instruction there, and elsewhere many
  hn::StoreU(hn::TruncateTo(half, kept), half, &to->bits);
#else
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(wide_signed, kept)), half, &to->bits);
#endif
}

// Two vectors of numbers that lie side by side in memory, in the order of lanes that is cheapest for their
// type: one vector after the other for float32, even and odd numbers for bfloat16, which one operation each
// widens.
template <typename V>
struct Two {
  V a, b;
};

template <typename D>
HWY_INLINE Two<hn::Vec<D>> LoadTwo(D d, const float* from) {
  return {hn::LoadU(d, from), hn::LoadU(d, from + hn::Lanes(d))};
}

template <typename D>
HWY_INLINE void StoreTwo(Two<hn::Vec<D>> values, D d, float* to) {
  hn::StoreU(values.a, d, to);
  hn::StoreU(values.b, d, to + hn::Lanes(d));
}

template <typename D>
HWY_INLINE void StoreTwoOfBF16(Two<hn::Vec<D>> values, D d, float* to) {
  StoreTwo(values, d, to);
}

#if HWY_TARGET == HWY_SCALAR  // a vector of one has no odd numbers

template <typename D>
HWY_INLINE Two<hn::Vec<D>> LoadTwo(D d, const BF16* from) {
  return {LoadFloats(d, from), LoadFloats(d, from + 1)};
}

template <typename D>
HWY_INLINE void StoreTwo(Two<hn::Vec<D>> values, D d, BF16* to) {
  StoreFloats(values.a, d, to);
  StoreFloats(values.b, d, to + 1);
}

template <typename D>
HWY_INLINE void StoreTwoOfBF16(Two<hn::Vec<D>> values, D d, BF16* to) {
  StoreTwo(values, d, to);
}

#else

template <typename D>
HWY_INLINE Two<hn::Vec<D>> LoadTwo(D d, const BF16* from) {
  const hn::Repartition<uint16_t, D> halves;
  const hn::Repartition<uint32_t, D> words;
  const auto both = hn::BitCast(words, hn::LoadU(halves, &from->bits));
  return {hn::BitCast(d, hn::ShiftLeft<16>(both)),
          hn::BitCast(d, hn::And(both, hn::Set(words, 0xffff0000u)))};
}

// As StoreFloats where a NaN has nothing in its lower half: one that arithmetic made of bfloat16 numbers has
// not, so that rounding adds nothing that carries into what is kept.
template <typename D>
HWY_INLINE void StoreTwoOfBF16(Two<hn::Vec<D>> values, D d, BF16* to) {
  const hn::Repartition<uint16_t, D> halves;
  const hn::Repartition<uint32_t, D> words;
  const auto rounded = [&](hn::Vec<D> value)
                           HWY_ATTR { return RoundedUpperHalf(words, hn::BitCast(words, value)); };
  hn::StoreU(hn::OddEven(hn::BitCast(halves, rounded(values.b)),
                         hn::BitCast(halves, hn::ShiftRight<16>(rounded(values.a)))),
             halves, &to->bits);
}

// As StoreFloats.
template <typename D>
HWY_INLINE void StoreTwo(Two<hn::Vec<D>> values, D d, BF16* to) {
  const hn::Repartition<uint32_t, D> words;
  const auto is_nan = hn::Or(hn::IsNaN(values.a), hn::IsNaN(values.b));
  if (HWY_UNLIKELY(!hn::AllFalse(d, is_nan))) {
    const auto shortened = [&](hn::Vec<D> value) HWY_ATTR {
      const auto quiet = hn::Or(hn::BitCast(words, value), hn::Set(words, 0x400000));
      const auto upper = hn::BitCast(d, hn::And(quiet, hn::Set(words, 0xffff0000u)));
      return hn::IfThenElse(hn::IsNaN(value), upper, value);
    };
    values = {shortened(values.a), shortened(values.b)};
  }
  StoreTwoOfBF16(values, d, to);
}

#endif  // HWY_TARGET == HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
