// A panel: numbers side by side across three vectors, and the product that everything here is made of.
// Included once for each target of Highway's foreach_target.h.
#if defined(SEQPAR_WORKER_DEVICE_CPU_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQPAR_WORKER_DEVICE_CPU_PANEL_INL_H_
#undef SEQPAR_WORKER_DEVICE_CPU_PANEL_INL_H_
#else
#define SEQPAR_WORKER_DEVICE_CPU_PANEL_INL_H_
#endif

#include "worker/device/cpu/simd.h"
#include "worker/device/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
#if HWY_TARGET != HWY_SCALAR
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kPanel = 3 * kLanes;

// One row of a panel.
struct Row {
  Vec x0, x1, x2;
};
HWY_INLINE Row LoadRow(const float* from) {
  return {Load(from), Load(from + kLanes), Load(from + 2 * kLanes)};
}
HWY_INLINE void StoreRow(const Row& row, float* to) {
  Store(row.x0, to);
  Store(row.x1, to + kLanes);
  Store(row.x2, to + 2 * kLanes);
}
HWY_INLINE Row FillRow(float value) { return {Fill(value), Fill(value), Fill(value)}; }
HWY_INLINE Row Add(const Row& a, const Row& b) {
  return {hn::Add(a.x0, b.x0), hn::Add(a.x1, b.x1), hn::Add(a.x2, b.x2)};
}
HWY_INLINE void AddScaled(Row& sum, float a, const Row& b) {
  const Vec factor = Fill(a);
  sum.x0 = hn::MulAdd(factor, b.x0, sum.x0);
  sum.x1 = hn::MulAdd(factor, b.x1, sum.x1);
  sum.x2 = hn::MulAdd(factor, b.x2, sum.x2);
}

// kGroup rows of a panel, held in registers through a product.
struct Tile {
  Row r0, r1, r2, r3;
};

// tile[i] = sum over k of a[k][i] * b[k]; a is [depth][kGroup], b [depth][kPanel].
HWY_INLINE Tile Product(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int depth) {
  Tile t{FillRow(0), FillRow(0), FillRow(0), FillRow(0)};
  HWY_UNROLL(4)
  for (int k = 0; k < depth; ++k, a += kGroup, b += kPanel) {
    const Row row = LoadRow(b);
    AddScaled(t.r0, a[0], row);
    AddScaled(t.r1, a[1], row);
    AddScaled(t.r2, a[2], row);
    AddScaled(t.r3, a[3], row);
  }
  return t;
}

#endif  // HWY_TARGET != HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
