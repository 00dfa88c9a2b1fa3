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

// As ToBF16. To nearest even by adding half a unit less one, and one more where the last bit kept is odd.
// (The processor's own conversion takes denormals for zeros.)
template <typename D>
HWY_INLINE void StoreFloats(hn::Vec<D> value, D d, BF16* to) {
  const hn::Rebind<uint32_t, D> wide;
  const hn::Rebind<int32_t, D> wide_signed;
  const hn::Rebind<uint16_t, D> half;
  const auto u = hn::BitCast(wide, value);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(wide, 1));
  const auto rounded = hn::Add(u, hn::Add(odd, hn::Set(wide, 0x7fff)));
  const auto quiet = hn::Or(u, hn::Set(wide, 0x400000));
  const auto chosen = hn::IfThenElse(hn::IsNaN(value), hn::BitCast(d, quiet), hn::BitCast(d, rounded));
  const auto kept = hn::ShiftRight<16>(hn::BitCast(wide, chosen));
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL  // one instruction there, and elsewhere many
  hn::StoreU(hn::TruncateTo(half, kept), half, &to->bits);
#else
  hn::StoreU(hn::DemoteTo(half, hn::BitCast(wide_signed, kept)), half, &to->bits);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
