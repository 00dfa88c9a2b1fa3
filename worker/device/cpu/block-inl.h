// A block of sums held in registers, of any shape, and the product that fills it.
// Included once for each target of Highway's foreach_target.h.
#if defined(SEQPAR_WORKER_DEVICE_CPU_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQPAR_WORKER_DEVICE_CPU_BLOCK_INL_H_
#undef SEQPAR_WORKER_DEVICE_CPU_BLOCK_INL_H_
#else
#define SEQPAR_WORKER_DEVICE_CPU_BLOCK_INL_H_
#endif

#include "worker/device/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
#if HWY_TARGET != HWY_SCALAR

// Every loop over a Block's rows or vectors is unrolled whole, so that all of it stays in registers.
// NOLINTNEXTLINE(bugprone-macro-parentheses): `i` is a name
#define SEQPAR_EACH(i, count) HWY_UNROLL(16) for (int i = 0; i < (count); ++i)

// kVectors vectors side by side. The constructors say what would go without saying, but that an implicit one
// is compiled for no target in particular, and NEON's vectors cannot be inlined there.
template <int kVectors>
struct Vectors {
  HWY_INLINE Vectors() {}
  Vec v[kVectors];
};
template <int kVectors>
HWY_INLINE Vectors<kVectors> LoadVectors(const float* from) {
  Vectors<kVectors> x;
  SEQPAR_EACH(i, kVectors) x.v[i] = Load(from + i * kLanes);
  return x;
}
template <int kVectors>
HWY_INLINE void StoreVectors(const Vectors<kVectors>& x, float* to) {
  SEQPAR_EACH(i, kVectors) Store(x.v[i], to + i * kLanes);
}
template <int kVectors>
HWY_INLINE Vectors<kVectors> FillVectors(float value) {
  Vectors<kVectors> x;
  SEQPAR_EACH(i, kVectors) x.v[i] = Fill(value);
  return x;
}

// kRows such rows.
template <int kRows, int kVectors>
struct Block {
  HWY_INLINE Block() {}
  Vectors<kVectors> row[kRows];
};

// block[i] += sum over k of a[k * kStep + i * kStride] * b[k], where b is [depth][kVectors * kLanes].
template <int kStep, int kStride, int kRows, int kVectors>
HWY_INLINE void AddProduct(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int depth,
                           Block<kRows, kVectors>& block) {
  HWY_UNROLL(4)
  for (int k = 0; k < depth; ++k, a += kStep, b += kVectors * kLanes) {
    const Vectors<kVectors> x = LoadVectors<kVectors>(b);
    SEQPAR_EACH(i, kRows) {
      const Vec factor = Fill(a[i * kStride]);
      SEQPAR_EACH(j, kVectors) block.row[i].v[j] = hn::MulAdd(factor, x.v[j], block.row[i].v[j]);
    }
  }
}

// The same from nothing; a is [depth][kRows]. Each sum runs over ascending k in one chain of MulAdd.
template <int kRows, int kVectors>
HWY_INLINE Block<kRows, kVectors> BlockProduct(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b,
                                               int depth) {
  Block<kRows, kVectors> block;
  SEQPAR_EACH(i, kRows) block.row[i] = FillVectors<kVectors>(0);
  AddProduct<kRows, 1>(a, b, depth, block);
  return block;
}

#endif  // HWY_TARGET != HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
