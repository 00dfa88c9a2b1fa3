#include "worker/device/cpu/attention_simd.h"

#include <limits>

#include "worker/device/cpu/simd-dispatch.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/device/cpu/attention_simd.cc"
#include "hwy/foreach_target.h"
// foreach_target.h has to come first.
#include "hwy/highway.h"
#include "worker/device/cpu/panel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

// Without vectors the plain kernel is as good, and panels are too narrow for the packing.
const AttentionSimd* GetAttentionSimd() { return nullptr; }

#else
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kDimBlock = 2 * kLanes;

// `value` where the query sees the key, `other` elsewhere.
HWY_INLINE Vec IfSeen(const PanelKeys& seen, int offset, int32_t key, Vec value, Vec other) {
  const auto index = hn::Set(Ints(), key);
  const auto lo = hn::Load(Ints(), seen.lo + offset), hi = hn::Load(Ints(), seen.hi + offset);
  const auto visible = hn::AndNot(hn::Gt(lo, index), hn::Gt(hi, index));
  return hn::IfThenElse(hn::RebindMask(Floats(), visible), value, other);
}
HWY_INLINE Row IfSeen(const PanelKeys& seen, int32_t key, const Row& row, float other) {
  const Vec o = Fill(other);
  return {IfSeen(seen, 0, key, row.x0, o), IfSeen(seen, kLanes, key, row.x1, o),
          IfSeen(seen, 2 * kLanes, key, row.x2, o)};
}
HWY_INLINE void HideUnseen(const PanelKeys& seen, int32_t key, float other, Tile& t) {
  t.r0 = IfSeen(seen, key, t.r0, other);
  t.r1 = IfSeen(seen, key + 1, t.r1, other);
  t.r2 = IfSeen(seen, key + 2, t.r2, other);
  t.r3 = IfSeen(seen, key + 3, t.r3, other);
}

template <bool kMasked>
HWY_INLINE void ScoreGroup(const ForwardStep& s, int key, Row& max) {
  Tile t = Product(s.keys + int64_t{key} * s.head_dim, s.queries, s.head_dim);
  if (kMasked) HideUnseen(s.keys_seen, key, -std::numeric_limits<float>::infinity(), t);
  float* to = s.scores + key * kPanel;
  StoreRow(t.r0, to);
  StoreRow(t.r1, to + kPanel);
  StoreRow(t.r2, to + 2 * kPanel);
  StoreRow(t.r3, to + 3 * kPanel);
  max = Max(max, Max(Max(t.r0, t.r1), Max(t.r2, t.r3)));
}

// What scores are taken relative to: 0 where the maximum is -infinity, as infinities have no difference.
HWY_INLINE Vec Finite(Vec max) {
  return hn::IfThenElseZero(hn::Gt(max, Fill(-std::numeric_limits<float>::infinity())), max);
}

void Forward(const ForwardStep& s) {
  const PanelKeys& seen = s.keys_seen;
  const Row old_max = LoadRow(s.max);
  Row max = old_max;
  int key = seen.begin;
  for (; key < seen.clear_begin; key += kGroup) ScoreGroup<true>(s, key, max);
  for (; key < seen.clear_end; key += kGroup) ScoreGroup<false>(s, key, max);
  for (; key < seen.end; key += kGroup) ScoreGroup<true>(s, key, max);

  const Row base{Finite(max.x0), Finite(max.x1), Finite(max.x2)};
  const Row shrink = Exp2(Sub(old_max, base));
  StoreRow(max, s.max);
  Row sum = FillRow(0);
  for (int i = seen.begin; i < seen.end; ++i) {
    float* score = s.scores + i * kPanel;
    const Row p = Exp2(Sub(LoadRow(score), base));
    StoreRow(p, score);
    sum = Add(sum, p);
  }
  StoreRow(MulAdd(LoadRow(s.sum), shrink, sum), s.sum);

  for (int dim = 0; dim < s.head_dim; dim += kGroup) {
    const float* values = s.values + int64_t{dim} * s.chunk + seen.begin * kGroup;
    const Tile t = Product(values, s.scores + seen.begin * kPanel, seen.end - seen.begin);
    float* out = s.out + dim * kPanel;
    StoreRow(MulAdd(LoadRow(out), shrink, t.r0), out);
    StoreRow(MulAdd(LoadRow(out + kPanel), shrink, t.r1), out + kPanel);
    StoreRow(MulAdd(LoadRow(out + 2 * kPanel), shrink, t.r2), out + 2 * kPanel);
    StoreRow(MulAdd(LoadRow(out + 3 * kPanel), shrink, t.r3), out + 3 * kPanel);
  }
}

template <bool kMasked>
HWY_INLINE void ProbabilityGroup(const BackwardStep& s, int key, const Row& lse) {
  const Tile t = Product(s.keys + int64_t{key} * s.head_dim, s.queries, s.head_dim);
  Tile p{Exp2(Sub(t.r0, lse)), Exp2(Sub(t.r1, lse)), Exp2(Sub(t.r2, lse)), Exp2(Sub(t.r3, lse))};
  if (kMasked) HideUnseen(s.keys_seen, key, 0, p);
  float* to = s.p + key * kPanel;
  StoreRow(p.r0, to);
  StoreRow(p.r1, to + kPanel);
  StoreRow(p.r2, to + 2 * kPanel);
  StoreRow(p.r3, to + 3 * kPanel);
}

void BackwardScores(const BackwardStep& s) {
  const PanelKeys& seen = s.keys_seen;
  const Row lse = LoadRow(s.lse);
  int key = seen.begin;
  for (; key < seen.clear_begin; key += kGroup) ProbabilityGroup<true>(s, key, lse);
  for (; key < seen.clear_end; key += kGroup) ProbabilityGroup<false>(s, key, lse);
  for (; key < seen.end; key += kGroup) ProbabilityGroup<true>(s, key, lse);

  const Row delta = LoadRow(s.delta);
  for (key = seen.begin; key < seen.end; key += kGroup) {
    const Tile t = Product(s.values + int64_t{key} * s.head_dim, s.douts, s.head_dim);
    const float* p = s.p + key * kPanel;
    float* ds = s.ds + key * kPanel;
    StoreRow(Mul(LoadRow(p), Sub(t.r0, delta)), ds);
    StoreRow(Mul(LoadRow(p + kPanel), Sub(t.r1, delta)), ds + kPanel);
    StoreRow(Mul(LoadRow(p + 2 * kPanel), Sub(t.r2, delta)), ds + 2 * kPanel);
    StoreRow(Mul(LoadRow(p + 3 * kPanel), Sub(t.r3, delta)), ds + 3 * kPanel);
  }
}

void BackwardQueryGradient(const BackwardStep& s) {
  const PanelKeys& seen = s.keys_seen;
  for (int dim = 0; dim < s.head_dim; dim += kGroup) {
    const float* keys = s.keys_along + int64_t{dim} * s.chunk + seen.begin * kGroup;
    const Tile t = Product(keys, s.ds + seen.begin * kPanel, seen.end - seen.begin);
    float* dq = s.dq + dim * kPanel;
    StoreRow(Add(LoadRow(dq), t.r0), dq);
    StoreRow(Add(LoadRow(dq + kPanel), t.r1), dq + kPanel);
    StoreRow(Add(LoadRow(dq + 2 * kPanel), t.r2), dq + 2 * kPanel);
    StoreRow(Add(LoadRow(dq + 3 * kPanel), t.r3), dq + 3 * kPanel);
  }
}

// A key's gradient in one block of dimensions.
struct Pair {
  Vec x0, x1;
};
HWY_INLINE void AddScaled(Pair& sum, float a, const Pair& b) {
  const Vec factor = Fill(a);
  sum.x0 = hn::MulAdd(factor, b.x0, sum.x0);
  sum.x1 = hn::MulAdd(factor, b.x1, sum.x1);
}
HWY_INLINE void AddTo(const Pair& sum, float* to) {
  Store(hn::Add(Load(to), sum.x0), to);
  Store(hn::Add(Load(to + kLanes), sum.x1), to + kLanes);
}

void BackwardKeyGradient(const KeyGradientStep& s) {
  const Pair zero{Fill(0), Fill(0)};
  Pair g0 = zero, g1 = zero, g2 = zero, g3 = zero, g4 = zero, g5 = zero;
  const float* HWY_RESTRICT row = s.rows;
  for (int panel = 0; panel < s.panels; ++panel) {
    const float* HWY_RESTRICT weight = s.weights + panel * s.weights_stride;
    HWY_UNROLL(4)
    for (int query = 0; query < kPanel; ++query, ++weight, row += kDimBlock) {
      const Pair x{Load(row), Load(row + kLanes)};
      AddScaled(g0, weight[0], x);
      AddScaled(g1, weight[kPanel], x);
      AddScaled(g2, weight[2 * kPanel], x);
      AddScaled(g3, weight[3 * kPanel], x);
      AddScaled(g4, weight[4 * kPanel], x);
      AddScaled(g5, weight[5 * kPanel], x);
    }
  }
  AddTo(g0, s.sums);
  AddTo(g1, s.sums + s.sums_stride);
  AddTo(g2, s.sums + 2 * s.sums_stride);
  AddTo(g3, s.sums + 3 * s.sums_stride);
  AddTo(g4, s.sums + 4 * s.sums_stride);
  AddTo(g5, s.sums + 5 * s.sums_stride);
}

const AttentionSimd* GetAttentionSimd() {
  static const AttentionSimd simd{
      kPanel, kDimBlock, &Forward, &BackwardScores, &BackwardQueryGradient, &BackwardKeyGradient};
  return &simd;
}

#endif  // HWY_TARGET == HWY_SCALAR
}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqpar::cpu {
namespace {

HWY_EXPORT(GetAttentionSimd);

}  // namespace

const AttentionSimd* FindAttentionSimd(const std::string& name) {
  return SEQPAR_CHOOSE_SIMD(GetAttentionSimd, name);
}

}  // namespace seqpar::cpu
#endif  // HWY_ONCE
