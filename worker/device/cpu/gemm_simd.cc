#include "worker/device/cpu/gemm_simd.h"

#include <algorithm>

#include "worker/device/cpu/simd-dispatch.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/device/cpu/gemm_simd.cc"
#include "hwy/foreach_target.h"
// foreach_target.h has to come first.
#include "hwy/highway.h"
#include "worker/device/cpu/panel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

const GemmSimd* GetGemmSimd() { return nullptr; }

#else
namespace hn = hwy::HWY_NAMESPACE;

// Rows of c are aligned to nothing but a float.
HWY_INLINE Row LoadUnaligned(const float* from) {
  return {hn::LoadU(Floats(), from), hn::LoadU(Floats(), from + kLanes),
          hn::LoadU(Floats(), from + 2 * kLanes)};
}
HWY_INLINE void StoreUnaligned(const Row& row, float* to) {
  hn::StoreU(row.x0, Floats(), to);
  hn::StoreU(row.x1, Floats(), to + kLanes);
  hn::StoreU(row.x2, Floats(), to + 2 * kLanes);
}

HWY_INLINE void PutRow(const Row& row, bool add, float* to) {
  StoreUnaligned(add ? Add(LoadUnaligned(to), row) : row, to);
}

// The part of a tile that c has, at its right and lower edges.
HWY_INLINE void PutPart(const Tile& t, int64_t rows, const PanelProduct& p, float* to) {
  HWY_ALIGN float values[kGroup * kPanel];
  StoreRow(t.r0, values);
  StoreRow(t.r1, values + kPanel);
  StoreRow(t.r2, values + 2 * kPanel);
  StoreRow(t.r3, values + 3 * kPanel);
  for (int64_t row = 0; row < std::min<int64_t>(rows, kGroup); ++row) {
    for (int col = 0; col < p.cols; ++col) {
      float& target = to[row * p.ldc + col];
      target = p.add ? target + values[row * kPanel + col] : values[row * kPanel + col];
    }
  }
}

void Multiply(const PanelProduct& p) {
  const float* a = p.a;
  float* c = p.c;
  for (int64_t row = 0; row < p.rows; row += kGroup, a += int64_t{p.depth} * kGroup, c += kGroup * p.ldc) {
    const Tile t = Product(a, p.b, p.depth);
    if (row + kGroup <= p.rows && p.cols == kPanel) {
      PutRow(t.r0, p.add, c);
      PutRow(t.r1, p.add, c + p.ldc);
      PutRow(t.r2, p.add, c + 2 * p.ldc);
      PutRow(t.r3, p.add, c + 3 * p.ldc);
    } else {
      PutPart(t, p.rows - row, p, c);
    }
  }
}

const GemmSimd* GetGemmSimd() {
  static const GemmSimd simd{kPanel, &Multiply};
  return &simd;
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqpar::cpu {
namespace {

HWY_EXPORT(GetGemmSimd);

}  // namespace

const GemmSimd* FindGemmSimd(const std::string& name) { return SEQPAR_CHOOSE_SIMD(GetGemmSimd, name); }

}  // namespace seqpar::cpu
#endif  // HWY_ONCE
