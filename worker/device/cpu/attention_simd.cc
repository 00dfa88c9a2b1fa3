#include "worker/device/cpu/attention_simd.h"

#include <cstring>
#include <limits>

#include "worker/device/cpu/simd-dispatch.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/device/cpu/attention_simd.cc"
#include "hwy/foreach_target.h"
// foreach_target.h has to come first.
#include "hwy/highway.h"
#include "worker/device/cpu/block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
#if HWY_TARGET == HWY_SCALAR

// Without vectors the plain kernel is as good, and panels are too narrow for the packing.
const AttentionSimd* GetAttentionSimd() { return nullptr; }

#else
namespace hn = hwy::HWY_NAMESPACE;

// Shapes of the blocks of sums. AVX-512 has 32 registers, and its long vectors want narrow panels: less of a
// tile is then past the diagonal, and scores stay in the first level cache. Elsewhere 12 sums and what
// multiplies them fill 16 registers; SSE4, which adds after it multiplies, wants some for the products.
constexpr bool kLong = kLanes == 16;
constexpr int kPanelVectors = kLong || HWY_TARGET == HWY_SSE4 ? 2 : 3;
constexpr int kPanelQueries = kPanelVectors * kLanes;
constexpr int kRows = kLong ? 8 : 4;
constexpr int kWideKeys = kLong ? 8 : 6, kNarrowKeys = kLong ? 8 : 12;
constexpr int kGranule = kLong ? 8 : 12;
constexpr int kForwardChunk = kLong ? 128 : 132, kBackwardChunk = 96;

using Row = Vectors<kPanelVectors>;
using Tile = Block<kRows, kPanelVectors>;
HWY_INLINE Tile Product(const float* a, const float* b, int depth) {
  return BlockProduct<kRows, kPanelVectors>(a, b, depth);
}
HWY_INLINE Row LoadPanel(const float* from) { return LoadVectors<kPanelVectors>(from); }

// The same but for weights of 0 in b, which add nothing whatever a holds. Seldom called: kept out of the
// loops that are.
HWY_NOINLINE void GuardedProduct(const float* a, const float* b, int depth, Tile& t) {
  SEQPAR_EACH(i, kRows) t.row[i] = FillVectors<kPanelVectors>(0);
  for (int k = 0; k < depth; ++k, a += kRows, b += kPanelQueries) {
    const Row weights = LoadPanel(b);
    SEQPAR_EACH(j, kPanelVectors) {
      const auto nothing = hn::Eq(weights.v[j], Fill(0));  // NaN is something
      SEQPAR_EACH(i, kRows) {
        Vec& sum = t.row[i].v[j];
        sum = hn::IfThenElse(nothing, sum, hn::MulAdd(Fill(a[i]), weights.v[j], sum));
      }
    }
  }
}
HWY_INLINE Tile ProductOfWeights(bool guarded, const float* a, const float* weights, int depth) {
  if (HWY_LIKELY(!guarded)) return Product(a, weights, depth);
  Tile t;
  GuardedProduct(a, weights, depth, t);
  return t;
}

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// -infinity, or zero, where a query does not see the key.
HWY_INLINE Row OnlySeen(const PanelKeys& seen, int32_t key, const Row& row, float other) {
  const auto index = hn::Set(Ints(), key);
  Row result;
  SEQPAR_EACH(j, kPanelVectors) {
    const auto lo = hn::Load(Ints(), seen.lo + j * kLanes), hi = hn::Load(Ints(), seen.hi + j * kLanes);
    const auto visible = hn::AndNot(hn::Gt(lo, index), hn::Gt(hi, index));
    result.v[j] = hn::IfThenElse(hn::RebindMask(Floats(), visible), row.v[j], Fill(other));
  }
  return result;
}

// What scores are taken relative to: 0 where the maximum is -infinity, as infinities have no difference.
HWY_INLINE Row Finite(const Row& max) {
  Row result;
  SEQPAR_EACH(j, kPanelVectors)
  result.v[j] = hn::IfThenElseZero(hn::Gt(max.v[j], Fill(kMinusInfinity)), max.v[j]);
  return result;
}

template <bool kMasked>
HWY_INLINE Tile Scores(const ForwardStep& s, int key) {
  Tile t = Product(s.keys + int64_t{key} * s.head_dim, s.queries, s.head_dim);
  if (kMasked) {
    SEQPAR_EACH(i, kRows) t.row[i] = OnlySeen(s.keys_seen, key + i, t.row[i], kMinusInfinity);
  }
  return t;
}

HWY_INLINE void RaiseTo(const Tile& t, Row& max) {
  SEQPAR_EACH(j, kPanelVectors) {
    Vec top = t.row[0].v[j];
    SEQPAR_EACH(i, kRows - 1) top = hn::Max(top, t.row[i + 1].v[j]);
    max.v[j] = hn::Max(max.v[j], top);
  }
}

// Calls Group::Run<masked>(step, key, state) for each group of keys that the panel sees.
template <class Group, class Step, class State>
HWY_INLINE void ForGroups(const Step& s, State& state) {
  const PanelKeys& seen = s.keys_seen;
  int key = seen.begin;
  for (; key < seen.clear_begin; key += kRows) Group::template Run<true>(s, key, state);
  for (; key < seen.clear_end; key += kRows) Group::template Run<false>(s, key, state);
  for (; key < seen.end; key += kRows) Group::template Run<true>(s, key, state);
}

// Scores as they are, and their maximum.
struct MaximumGroup {
  template <bool kMasked>
  static HWY_INLINE void Run(const ForwardStep& s, int key, Row& max) {
    const Tile t = Scores<kMasked>(s, key);
    SEQPAR_EACH(i, kRows) StoreVectors(t.row[i], s.scores + (key + i) * kPanelQueries);
    RaiseTo(t, max);
  }
};

// Weights relative to a base that is known beforehand, their sum, and the maximum of the scores.
struct Weights {
  Row base, max, sum;
};
struct WeightGroup {
  template <bool kMasked>
  static HWY_INLINE void Run(const ForwardStep& s, int key, Weights& w) {
    const Tile t = Scores<kMasked>(s, key);
    RaiseTo(t, w.max);
    SEQPAR_EACH(i, kRows) {
      SEQPAR_EACH(j, kPanelVectors) {
        const Vec p = Exp2(hn::Sub(t.row[i].v[j], w.base.v[j]));
        Store(p, s.scores + (key + i) * kPanelQueries + j * kLanes);
        w.sum.v[j] = hn::Add(w.sum.v[j], p);
      }
    }
  }
};

// Whether some query sees a key here that saw none before.
HWY_INLINE bool SomeBegin(const PanelKeys& seen, const Row& base) {
  const bool all_see = seen.clear_begin < seen.clear_end;
  bool begin = false;
  SEQPAR_EACH(j, kPanelVectors) {
    auto unset = hn::Eq(base.v[j], Fill(kMinusInfinity));
    if (!all_see) {
      const auto lo = hn::Load(Ints(), seen.lo + j * kLanes), hi = hn::Load(Ints(), seen.hi + j * kLanes);
      unset = hn::And(unset, hn::RebindMask(Floats(), hn::Lt(lo, hi)));
    }
    begin = begin || !hn::AllFalse(Floats(), unset);
  }
  return begin;
}

// Weights of the keys seen, relative to the base that holds already, and their sum. False where a score is so
// far above it that the sums must be rescaled; nothing is changed then but scratch.
HWY_INLINE bool WeighAtOldBase(const ForwardStep& s) {
  constexpr float kGrowth = 16;  // powers of two; weights stay far below infinity
  const Row base = LoadPanel(s.base);
  if (SomeBegin(s.keys_seen, base)) return false;
  const Row finite = Finite(base);
  Weights w{finite, finite, FillVectors<kPanelVectors>(0)};
  ForGroups<WeightGroup>(s, w);
  bool grown = false;
  SEQPAR_EACH(j, kPanelVectors) {
    grown = grown || !hn::AllFalse(Floats(), hn::Gt(hn::Sub(w.max.v[j], finite.v[j]), Fill(kGrowth)));
  }
  if (grown) return false;
  SEQPAR_EACH(j, kPanelVectors) {
    float* sum = s.sum + j * kLanes;
    Store(hn::Add(Load(sum), w.sum.v[j]), sum);
  }
  return true;
}

// The same relative to the maximum of all scores so far. Returns what the older sums shrink by.
HWY_INLINE Row WeighAtMaximum(const ForwardStep& s) {
  const PanelKeys& seen = s.keys_seen;
  const Row old_base = LoadPanel(s.base);
  Row max = old_base;
  ForGroups<MaximumGroup>(s, max);
  StoreVectors(max, s.base);
  const Row base = Finite(max);
  Row shrink, sum = FillVectors<kPanelVectors>(0);
  SEQPAR_EACH(j, kPanelVectors) shrink.v[j] = Exp2(hn::Sub(old_base.v[j], base.v[j]));
  for (int key = seen.begin; key < seen.end; ++key) {
    SEQPAR_EACH(j, kPanelVectors) {
      float* score = s.scores + key * kPanelQueries + j * kLanes;
      const Vec p = Exp2(hn::Sub(Load(score), base.v[j]));
      Store(p, score);
      sum.v[j] = hn::Add(sum.v[j], p);
    }
  }
  SEQPAR_EACH(j, kPanelVectors) {
    float* held = s.sum + j * kLanes;
    Store(hn::MulAdd(Load(held), shrink.v[j], sum.v[j]), held);
  }
  return shrink;
}

void Forward(const ForwardStep& s) {
  const PanelKeys& seen = s.keys_seen;
  Row shrink = FillVectors<kPanelVectors>(1);
  if (!WeighAtOldBase(s)) shrink = WeighAtMaximum(s);
  for (int dim = 0; dim < s.head_dim; dim += kRows) {
    const float* values = s.values + int64_t{dim} * s.chunk + seen.begin * kRows;
    const Tile t =
        ProductOfWeights(s.guarded, values, s.scores + seen.begin * kPanelQueries, seen.end - seen.begin);
    SEQPAR_EACH(i, kRows) {
      SEQPAR_EACH(j, kPanelVectors) {
        float* out = s.out + (dim + i) * kPanelQueries + j * kLanes;
        Store(hn::MulAdd(Load(out), shrink.v[j], t.row[i].v[j]), out);
      }
    }
  }
}

struct ProbabilityGroup {
  template <bool kMasked>
  static HWY_INLINE void Run(const BackwardStep& s, int key, const Row& lse) {
    const Tile t = Product(s.keys + int64_t{key} * s.head_dim, s.queries, s.head_dim);
    SEQPAR_EACH(i, kRows) {
      Row p;
      SEQPAR_EACH(j, kPanelVectors) p.v[j] = Exp2(hn::Sub(t.row[i].v[j], lse.v[j]));
      if (kMasked) p = OnlySeen(s.keys_seen, key + i, p, 0);
      StoreVectors(p, s.p + (key + i) * kPanelQueries);
    }
  }
};

struct ScoreGradientGroup {
  template <bool kMasked>
  static HWY_INLINE void Run(const BackwardStep& s, int key, const Row& delta) {
    const Tile t = Product(s.values + int64_t{key} * s.head_dim, s.douts, s.head_dim);
    SEQPAR_EACH(i, kRows) {
      const int at = (key + i) * kPanelQueries;
      Row ds;
      SEQPAR_EACH(j, kPanelVectors)
      ds.v[j] = hn::Mul(Load(s.p + at + j * kLanes), hn::Sub(t.row[i].v[j], delta.v[j]));
      if (kMasked) ds = OnlySeen(s.keys_seen, key + i, ds, 0);
      StoreVectors(ds, s.ds + at);
    }
  }
};

void BackwardScores(const BackwardStep& s) {
  const Row lse = LoadPanel(s.lse);
  ForGroups<ProbabilityGroup>(s, lse);
  const Row delta = LoadPanel(s.delta);
  ForGroups<ScoreGradientGroup>(s, delta);
}

void BackwardQueryGradient(const BackwardStep& s) {
  const PanelKeys& seen = s.keys_seen;
  for (int dim = 0; dim < s.head_dim; dim += kRows) {
    const float* keys = s.keys_along + int64_t{dim} * s.chunk + seen.begin * kRows;
    const Tile t =
        ProductOfWeights(s.guarded, keys, s.ds + seen.begin * kPanelQueries, seen.end - seen.begin);
    SEQPAR_EACH(i, kRows) {
      SEQPAR_EACH(j, kPanelVectors) {
        float* dq = s.dq + (dim + i) * kPanelQueries + j * kLanes;
        Store(hn::Add(Load(dq), t.row[i].v[j]), dq);
      }
    }
  }
}

template <int kKeys, int kVectors>
HWY_INLINE void AddKeyGradient(const KeyGradientStep& s) {
  Block<kKeys, kVectors> sums;
  SEQPAR_EACH(i, kKeys) sums.row[i] = FillVectors<kVectors>(0);
  for (int panel = 0; panel < s.panels; ++panel) {
    AddProduct<1, kPanelQueries>(s.weights + panel * s.weights_stride,
                                 s.rows + int64_t{panel} * kPanelQueries * kVectors * kLanes, kPanelQueries,
                                 sums);
  }
  SEQPAR_EACH(i, kKeys) {
    SEQPAR_EACH(j, kVectors) {
      float* to = s.sums + i * s.sums_stride + j * kLanes;
      Store(hn::Add(Load(to), sums.row[i].v[j]), to);
    }
  }
}

// In the same order.
template <int kKeys, int kVectors>
HWY_INLINE void AddKeyGradientGuarded(const KeyGradientStep& s) {
  for (int i = 0; i < kKeys; ++i) {
    Vectors<kVectors> sum = FillVectors<kVectors>(0);
    for (int panel = 0; panel < s.panels; ++panel) {
      const float* weights = s.weights + panel * s.weights_stride + int64_t{i} * kPanelQueries;
      const float* rows = s.rows + int64_t{panel} * kPanelQueries * kVectors * kLanes;
      for (int query = 0; query < kPanelQueries; ++query, rows += kVectors * kLanes) {
        if (weights[query] == 0) continue;
        SEQPAR_EACH(j, kVectors)
        sum.v[j] = hn::MulAdd(Fill(weights[query]), Load(rows + j * kLanes), sum.v[j]);
      }
    }
    SEQPAR_EACH(j, kVectors) {
      float* to = s.sums + i * s.sums_stride + j * kLanes;
      Store(hn::Add(Load(to), sum.v[j]), to);
    }
  }
}

void AddWideKeyGradient(const KeyGradientStep& s) { AddKeyGradient<kWideKeys, 2>(s); }
void AddNarrowKeyGradient(const KeyGradientStep& s) { AddKeyGradient<kNarrowKeys, 1>(s); }
void AddWideKeyGradientGuarded(const KeyGradientStep& s) { AddKeyGradientGuarded<kWideKeys, 2>(s); }
void AddNarrowKeyGradientGuarded(const KeyGradientStep& s) { AddKeyGradientGuarded<kNarrowKeys, 1>(s); }

void Unpack(const float* panel, int dims, float* rows) {
  HWY_ALIGN float four[kGroup * kLanes];  // dimensions of each query
  for (int dim = 0; dim < dims; dim += kGroup) {
    for (int j = 0; j < kPanelVectors; ++j) {
      const float* from = panel + dim * kPanelQueries + j * kLanes;
      hn::StoreInterleaved4(Load(from), Load(from + kPanelQueries), Load(from + 2 * kPanelQueries),
                            Load(from + 3 * kPanelQueries), Floats(), four);
      float* to = rows + int64_t{j} * kLanes * dims + dim;
      for (int query = 0; query < kLanes; ++query) {
        std::memcpy(to + int64_t{query} * dims, four + query * kGroup, kGroup * sizeof(float));
      }
    }
  }
}

// One lane each, so that MulAdd rounds as it does in a product; several at once hide its latency.
void Dots(const float* a, const float* b, int n, int64_t count, float* sums) {
  using One = hn::CappedTag<float, 1>;
  const One one;
  constexpr int kAtOnce = 8;
  int64_t item = 0;
  for (; item + kAtOnce <= count; item += kAtOnce, a += int64_t{kAtOnce} * n, b += int64_t{kAtOnce} * n) {
    hn::Vec<One> sum[kAtOnce];
    SEQPAR_EACH(j, kAtOnce) sum[j] = hn::Zero(one);
    for (int i = 0; i < n; ++i) {
      SEQPAR_EACH(j, kAtOnce)
      sum[j] = hn::MulAdd(hn::LoadU(one, a + j * n + i), hn::LoadU(one, b + j * n + i), sum[j]);
    }
    SEQPAR_EACH(j, kAtOnce) sums[item + j] = hn::GetLane(sum[j]);
  }
  for (; item < count; ++item, a += n, b += n) {
    auto sum = hn::Zero(one);
    for (int i = 0; i < n; ++i) sum = hn::MulAdd(hn::LoadU(one, a + i), hn::LoadU(one, b + i), sum);
    sums[item] = hn::GetLane(sum);
  }
}

const AttentionSimd* GetAttentionSimd() {
  static const AttentionSimd simd{
      kPanelQueries,
      kRows,
      kGranule,
      kForwardChunk,
      kBackwardChunk,
      &Forward,
      &BackwardScores,
      &BackwardQueryGradient,
      {kWideKeys, 2 * kLanes, &AddWideKeyGradient, &AddWideKeyGradientGuarded},
      {kNarrowKeys, kLanes, &AddNarrowKeyGradient, &AddNarrowKeyGradientGuarded},
      &Unpack,
      &Dots,
  };
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
