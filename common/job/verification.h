// What workers and coordinator both must know of verification: the worst of its errors, and its memory.
#ifndef SEQPAR_COMMON_JOB_VERIFICATION_H_
#define SEQPAR_COMMON_JOB_VERIFICATION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace seqpar {

// Whether error `a` is worse than `b`: NaN is worse than any number.
inline bool IsWorseError(double a, double b) { return std::isnan(a) ? !std::isnan(b) : a > b; }

// Float64 values of every rank go to all of them through device memory: of so many bytes at a time, whatever
// the number of ranks and sampled rows is.
inline constexpr int64_t kVerifyBytes = int64_t{64} << 20;

// How many values of each of `ranks` ranks that is: what a rank sends and what it receives fits, but at least
// one `unit` is taken, and whole ones.
inline int64_t VerifyValuesAtOnce(int64_t ranks, int64_t unit, int64_t bytes = kVerifyBytes) {
  const int64_t fit = bytes / static_cast<int64_t>(sizeof(double)) / (ranks + 1);
  return std::max(unit, fit / unit * unit);
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_JOB_VERIFICATION_H_
