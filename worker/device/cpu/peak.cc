#include "worker/device/cpu/peak.h"

#include <time.h>

#include <algorithm>
#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/device/cpu/peak.cc"
#include "hwy/foreach_target.h"
// foreach_target.h has to come first.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace seqpar {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Twelve chains are more than latency times ports of any processor known; they begin at different values, so
// that none can be left out as the copy of another. Returns the flops done; `sink` takes the result, so that
// the loop must be run.
double MultiplyAdd(int64_t repeats, float* sink) {
  const hn::ScalableTag<float> floats;
  const auto factor = hn::Set(floats, 0.999f), term = hn::Set(floats, 0.001f);
  const auto begin = [&](float value) HWY_ATTR { return hn::Set(floats, value); };
  auto a = begin(0.1f), b = begin(0.2f), c = begin(0.3f), d = begin(0.4f), e = begin(0.5f), f = begin(0.6f);
  auto g = begin(1.1f), h = begin(1.2f), i = begin(1.3f), j = begin(1.4f), k = begin(1.5f), l = begin(1.6f);
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    a = hn::MulAdd(a, factor, term);
    b = hn::MulAdd(b, factor, term);
    c = hn::MulAdd(c, factor, term);
    d = hn::MulAdd(d, factor, term);
    e = hn::MulAdd(e, factor, term);
    f = hn::MulAdd(f, factor, term);
    g = hn::MulAdd(g, factor, term);
    h = hn::MulAdd(h, factor, term);
    i = hn::MulAdd(i, factor, term);
    j = hn::MulAdd(j, factor, term);
    k = hn::MulAdd(k, factor, term);
    l = hn::MulAdd(l, factor, term);
  }
  const auto half = hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, d)), hn::Add(e, f));
  const auto rest = hn::Add(hn::Add(hn::Add(g, h), hn::Add(i, j)), hn::Add(k, l));
  *sink += hn::GetLane(hn::Add(half, rest));
  return 12.0 * 2.0 * static_cast<double>(hn::Lanes(floats)) * static_cast<double>(repeats);
}

}  // namespace HWY_NAMESPACE
}  // namespace seqpar
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seqpar {
namespace {

HWY_EXPORT(MultiplyAdd);

}  // namespace

double ThreadCpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double MeasureFmaPeak(double seconds) {
  constexpr int64_t kRepeats = 200'000;  // under a millisecond: short enough to fit between interruptions
  volatile float result = 0;
  float sink = 0;
  double best = 0;
  const double end = ThreadCpuSeconds() + seconds;
  do {
    const double start = ThreadCpuSeconds();
    const double flops = HWY_DYNAMIC_DISPATCH(MultiplyAdd)(kRepeats, &sink);
    best = std::max(best, flops / (ThreadCpuSeconds() - start));
  } while (ThreadCpuSeconds() < end);
  result = sink;
  (void)result;
  return best;
}

}  // namespace seqpar
#endif  // HWY_ONCE
