// Numbers from outside made whole: a conversion that does not fit its type is undefined, and clients choose
// the numbers.
#ifndef SEQPAR_COMMON_BASE_SATURATE_H_
#define SEQPAR_COMMON_BASE_SATURATE_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace seqpar {

// A quarter of the range of 64 bits: 73,000 years. Two of them still add up.
inline constexpr int64_t kMicrosMax = std::numeric_limits<int64_t>::max() / 4;

// The whole part of `value`, within a quarter of the range of 64 bits. NaN is 0.
inline int64_t WholeOf(double value) {
  constexpr double kMax = static_cast<double>(kMicrosMax);
  if (value >= kMax) return kMicrosMax;
  if (value <= -kMax) return -kMicrosMax;
  return value == value ? static_cast<int64_t>(value) : 0;
}

// `seconds` in whole microseconds, within kMicrosMax of 0. NaN is 0.
inline int64_t MicrosOf(double seconds) { return WholeOf(seconds * 1e6); }

// The same of milliseconds.
inline int64_t MicrosOfMillis(int64_t millis) {
  return std::clamp<int64_t>(millis, -kMicrosMax / 1000, kMicrosMax / 1000) * 1000;
}

}  // namespace seqpar

#endif  // SEQPAR_COMMON_BASE_SATURATE_H_
