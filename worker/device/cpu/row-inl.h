// A row of numbers, vector by vector.
// Included once for each target of Highway's foreach_target.h.
#if defined(SEQPAR_WORKER_DEVICE_CPU_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQPAR_WORKER_DEVICE_CPU_ROW_INL_H_
#undef SEQPAR_WORKER_DEVICE_CPU_ROW_INL_H_
#else
#define SEQPAR_WORKER_DEVICE_CPU_ROW_INL_H_
#endif

#include "hwy/cache_control.h"
#include "hwy/highway.h"

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

// Fetches the n numbers at `at`.
template <typename T>
HWY_INLINE void PrefetchStretch(const T* at, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < n; i += kLine) hwy::Prefetch(at + i);
}

}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
