// How long a test waits before it gives up.
#ifndef SEQPAR_TESTS_SUPPORT_TIME_H_
#define SEQPAR_TESTS_SUPPORT_TIME_H_

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace seqpar {

// SEQPAR_TEST_TIME_FACTOR: how many times slower than an ordinary build this one is taken to be; at least 1.
inline int TestTimeFactor() {
  const char* factor = std::getenv("SEQPAR_TEST_TIME_FACTOR");
  return factor == nullptr ? 1 : std::max(1, std::atoi(factor));
}

// A bound for what an ordinary build does well within `seconds`.
inline std::chrono::seconds TestSeconds(int seconds) {
  return std::chrono::seconds(seconds * TestTimeFactor());
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_SUPPORT_TIME_H_
