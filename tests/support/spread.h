// How much two series of measurements of one thing differ by chance.
#ifndef SEQPAR_TESTS_SUPPORT_SPREAD_H_
#define SEQPAR_TESTS_SUPPORT_SPREAD_H_

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace seqpar {

inline double BestOf(const std::vector<double>& seconds) {
  return *std::min_element(seconds.begin(), seconds.end());
}

// Two series of the same work, alike in length: the factor that the best of one is above the best of the
// other in at most one of twenty ways of parting all of the measurements into two such series. At least 1.
// What looks worse by less may be the same. Deterministic.
inline double SpreadOfBest(const std::vector<double>& one, const std::vector<double>& other) {
  constexpr int kPartings = 1000;
  std::vector<double> all = one, factors;
  all.insert(all.end(), other.begin(), other.end());
  const auto middle = static_cast<std::ptrdiff_t>(one.size());
  std::mt19937 random(1);
  for (int i = 0; i < kPartings; ++i) {
    std::shuffle(all.begin(), all.end(), random);
    const double left = *std::min_element(all.begin(), all.begin() + middle);
    const double right = *std::min_element(all.begin() + middle, all.end());
    factors.push_back(std::max(left, right) / std::min(left, right));
  }
  const auto nearly_most = factors.begin() + kPartings * 95 / 100;
  std::nth_element(factors.begin(), nearly_most, factors.end());
  return *nearly_most;
}

}  // namespace seqpar

#endif  // SEQPAR_TESTS_SUPPORT_SPREAD_H_
