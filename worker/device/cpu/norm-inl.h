// Norms of rows.
// Included once for each target of Highway's foreach_target.h.
#if defined(SEQPAR_WORKER_DEVICE_CPU_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEQPAR_WORKER_DEVICE_CPU_NORM_INL_H_
#undef SEQPAR_WORKER_DEVICE_CPU_NORM_INL_H_
#else
#define SEQPAR_WORKER_DEVICE_CPU_NORM_INL_H_
#endif

#include <algorithm>
#include <type_traits>

#include "worker/device/cpu/row-inl.h"
#include "worker/device/cpu/row_simd.h"
#include "worker/device/cpu/storage-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

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

// Calls add(tag, x[i], lane), which adds a term to lane 0 to 3 of sums, or, of a single number, to the rest.
template <typename T, typename Fn>
HWY_INLINE void ForEachTerm(const T* x, int64_t n, const Fn& add) {
  const Whole d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto first = LoadTwo(d, x + i), second = LoadTwo(d, x + i + 2 * lanes);
    add(d, first.a, 0);
    add(d, first.b, 1);
    add(d, second.a, 2);
    add(d, second.b, 3);
  }
  ForEachVector(i, n, [&](auto tag, int64_t at) HWY_ATTR { add(tag, LoadFloats(tag, x + at), 0); });
}

// Of a sum the lane, or what is left over.
HWY_INLINE WholeVec& Part(Sum& sum, Whole, int lane) { return sum.lanes[lane]; }
#if HWY_TARGET != HWY_SCALAR
HWY_INLINE hn::Vec<Single>& Part(Sum& sum, Single, int) { return sum.rest; }
#endif

template <typename T>
float SumOfSquares(const T* x, int64_t n) {
  Sum squares = NoSum();
  ForEachTerm(x, n, [&](auto d, auto value, int lane) HWY_ATTR {
    auto& sum = Part(squares, d, lane);
    sum = hn::MulAdd(value, value, sum);
  });
  return squares.Total();
}

template <typename T>
Moments MomentsOf(const T* x, int64_t n) {
  // A mean of 64: however far one number is from the others, what the sums lose by not being about the mean
  // is a factor of n / 64 of their rounding at most.
  const int64_t some = std::min<int64_t>(n, 64);
  Sum beginning = NoSum();
  ForEachTerm(x, some, [&](auto d, auto value, int lane) HWY_ATTR {
    auto& sum = Part(beginning, d, lane);
    sum = hn::Add(sum, value);
  });
  const float center = beginning.Total() * (1 / static_cast<float>(some));
  Sum sums = NoSum(), squares = NoSum();
  ForEachTerm(x, n, [&](auto d, auto value, int lane) HWY_ATTR {
    const auto away = hn::Sub(value, hn::Set(d, center));
    auto& sum = Part(sums, d, lane);
    auto& square = Part(squares, d, lane);
    sum = hn::Add(sum, away);
    square = hn::MulAdd(away, away, square);
  });
  return {center, sums.Total(), squares.Total()};
}

// h = x scale + shift.
struct Line {
  float scale, shift;
};
HWY_INLINE Line LineOf(const float* stats) { return {stats[1], -stats[0] * stats[1]}; }

template <typename D>
HWY_INLINE hn::Vec<D> On(D d, const Line& line, hn::Vec<D> x) {
  return hn::MulAdd(x, hn::Set(d, line.scale), hn::Set(d, line.shift));
}
template <typename D>
HWY_INLINE Two<hn::Vec<D>> On(D d, const Line& line, const Two<hn::Vec<D>>& x) {
  return {On(d, line, x.a), On(d, line, x.b)};
}

template <typename T>
HWY_INLINE T* RowOf(const RowsOf<T>& rows, int64_t row) {
  return rows.data + row * rows.ld;
}

template <typename T>
HWY_INLINE void NormaliseRow(const NormRows<T>& rows, int64_t row, const T* bias, RowsOf<T> to) {
  const Whole d;
  const int64_t n = rows.n, step = 2 * static_cast<int64_t>(hn::Lanes(d)), ahead = rows.rows * rows.x.ld;
  const T *const x = RowOf(rows.x, row), *const weight = rows.weight;
  T* const y = RowOf(to, row);
  const Line line = LineOf(rows.stats + 2 * row);
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    PrefetchStretch(x + i + ahead, step);
    PrefetchStretch(y + i + to.ld, step);  // or stores wait for their lines
    const auto h = On(d, line, LoadTwo(d, x + i)), w = LoadTwo(d, weight + i);
    auto plus = Two<WholeVec>{hn::Zero(d), hn::Zero(d)};
    if (bias != nullptr) plus = LoadTwo(d, bias + i);
    StoreTwoOfBF16<Whole>({hn::MulAdd(h.a, w.a, plus.a), hn::MulAdd(h.b, w.b, plus.b)}, d, y + i);
  }
  ForEachVector(i, n, [&](auto tag, int64_t at) HWY_ATTR {
    const auto h = On(tag, line, LoadFloats(tag, x + at)), w = LoadFloats(tag, weight + at);
    const auto value = bias == nullptr ? hn::Mul(h, w) : hn::MulAdd(h, w, LoadFloats(tag, bias + at));
    StoreFloats(value, tag, y + at);
  });
}

// Vectors in the order that LoadTwo has for T, as they lie in memory.
template <typename T>
HWY_INLINE Two<WholeVec> OrderOfMemory(const Two<WholeVec>& values) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (std::is_same_v<T, BF16>) {
    const Whole d;
    const auto low = hn::InterleaveLower(d, values.a, values.b);  // in each block of four
    const auto high = hn::InterleaveUpper(d, values.a, values.b);
    if constexpr (HWY_LANES(float) == 4) return {low, high};
    const auto first = hn::ConcatLowerLower(d, high, low), second = hn::ConcatUpperUpper(d, high, low);
    if constexpr (HWY_LANES(float) == 8) return {first, second};
    alignas(64) constexpr int32_t kMiddleBlocksSwapped[] = {0, 1, 2, 3, 8,  9,  10, 11,
                                                            4, 5, 6, 7, 12, 13, 14, 15};
    const auto order = hn::SetTableIndices(d, kMiddleBlocksSwapped);
    return {hn::TableLookupLanes(first, order), hn::TableLookupLanes(second, order)};
  }
#endif
  return values;
}

// Sums have their columns in the order of LoadTwo, which OrderSums ends.
template <typename T>
HWY_INLINE GradientSums AddGradientsOfRow(const NormRows<T>& rows, int64_t row, const T* dy,
                                          float* weight_sums, float* bias_sums) {
  const Whole d;
  const int64_t n = rows.n, lanes = static_cast<int64_t>(hn::Lanes(d));
  const T *const x = RowOf(rows.x, row), *const weight = rows.weight;
  const Line line = LineOf(rows.stats + 2 * row);
  Sum sum_g = NoSum(), sum_gh = NoSum();
  const auto add = [&](auto tag, int64_t i, int lane, auto at, auto gradient, auto w) HWY_ATTR {
    const auto h = On(tag, line, at), g = hn::Mul(gradient, w);
    auto& of_g = Part(sum_g, tag, lane);
    auto& of_gh = Part(sum_gh, tag, lane);
    of_g = hn::Add(of_g, g);
    of_gh = hn::MulAdd(g, h, of_gh);
    hn::StoreU(hn::MulAdd(gradient, h, hn::LoadU(tag, weight_sums + i)), tag, weight_sums + i);
    if (bias_sums == nullptr) return;
    hn::StoreU(hn::Add(gradient, hn::LoadU(tag, bias_sums + i)), tag, bias_sums + i);
  };
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto at = LoadTwo(d, x + i), gradient = LoadTwo(d, dy + i), w = LoadTwo(d, weight + i);
    add(d, i, 0, at.a, gradient.a, w.a);
    add(d, i + lanes, 1, at.b, gradient.b, w.b);
  }
  ForEachVector(i, n, [&](auto tag, int64_t j) HWY_ATTR {
    add(tag, j, 0, LoadFloats(tag, x + j), LoadFloats(tag, dy + j), LoadFloats(tag, weight + j));
  });
  return {sum_g.Total(), sum_gh.Total()};
}

template <typename T>
HWY_INLINE void GradientOfRow(const NormRows<T>& rows, int64_t row, RowsOf<const T> dy, GradientSums means,
                              RowsOf<const T> around, RowsOf<T> to) {
  const Whole d;
  const int64_t n = rows.n, step = 2 * static_cast<int64_t>(hn::Lanes(d));
  const T *const x = RowOf(rows.x, row), *const dys = RowOf(dy, row), *const weight = rows.weight;
  T* const dx = RowOf(to, row);
  const T* const plus = around.data == nullptr ? nullptr : RowOf(around, row);
  const Line h = LineOf(rows.stats + 2 * row);
  const float scale = h.scale, by_gh = static_cast<float>(means.gh) * scale;
  // (means.g + h means.gh) scale, which is taken from g scale.
  const Line line{h.scale * by_gh, h.shift * by_gh + static_cast<float>(means.g) * scale};
  const auto of = [&](auto tag, auto at, auto gradient, auto w, auto base) HWY_ATTR {
    const auto g = hn::MulAdd(hn::Mul(gradient, w), hn::Set(tag, scale), base);
    return hn::Sub(g, On(tag, line, at));
  };
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    PrefetchStretch(dx + i + to.ld, step);
    const auto at = LoadTwo(d, x + i), gradient = LoadTwo(d, dys + i), w = LoadTwo(d, weight + i);
    auto base = Two<WholeVec>{hn::Zero(d), hn::Zero(d)};
    if (plus != nullptr) base = LoadTwo(d, plus + i);
    StoreTwoOfBF16<Whole>({of(d, at.a, gradient.a, w.a, base.a), of(d, at.b, gradient.b, w.b, base.b)}, d,
                          dx + i);
  }
  ForEachVector(i, n, [&](auto tag, int64_t j) HWY_ATTR {
    const auto base = plus == nullptr ? hn::Zero(tag) : LoadFloats(tag, plus + j);
    StoreFloats(of(tag, LoadFloats(tag, x + j), LoadFloats(tag, dys + j), LoadFloats(tag, weight + j), base),
                tag, dx + j);
  });
}

template <typename T>
void Normalise(const NormRows<T>& rows, const T* bias, RowsOf<T> to) {
  for (int64_t row = 0; row < rows.rows; ++row) NormaliseRow(rows, row, bias, to);
}

template <typename T>
void AddGradients(const NormRows<T>& rows, RowsOf<const T> dy, float* weight_sums, float* bias_sums,
                  GradientSums* sums) {
  for (int64_t row = 0; row < rows.rows; ++row) {
    const GradientSums more = AddGradientsOfRow(rows, row, RowOf(dy, row), weight_sums, bias_sums);
    sums[row].g += more.g;
    sums[row].gh += more.gh;
  }
}

template <typename T>
void OrderSums(float* sums, int64_t n) {
  const Whole d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto ordered = OrderOfMemory<T>({hn::LoadU(d, sums + i), hn::LoadU(d, sums + i + lanes)});
    hn::StoreU(ordered.a, d, sums + i);
    hn::StoreU(ordered.b, d, sums + i + lanes);
  }
}

template <typename T>
void NormGradient(const NormRows<T>& rows, RowsOf<const T> dy, const GradientSums* means,
                  RowsOf<const T> around, RowsOf<T> to) {
  for (int64_t row = 0; row < rows.rows; ++row) {
    GradientOfRow(rows, row, dy, means[row], around, to);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace seqpar::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
