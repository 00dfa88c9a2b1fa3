// A covering array: few cases in which every pair of values of every two factors occurs.
#ifndef SEQPAR_TESTS_ORACLE_PAIRWISE_H_
#define SEQPAR_TESTS_ORACLE_PAIRWISE_H_

#include <cstddef>
#include <functional>
#include <vector>

namespace seqpar {

// Whether value a of factor f and value b of factor g, f < g, cannot be in one case.
using Excluded = std::function<bool(size_t f, int a, size_t g, int b)>;

// sizes[f]: the number of values of factor f. A case is the index of a value for each factor. No case has an
// excluded pair, and every other pair is in one. Greedy and deterministic: each case takes the first
// uncovered pair and fills the other factors with the values that cover most. REQUIRES: whatever the others
// are, each factor has a value that is not excluded.
std::vector<std::vector<int>> PairwiseCases(const std::vector<int>& sizes,
                                            const Excluded& excluded = nullptr);
// Every combination without an excluded pair.
std::vector<std::vector<int>> AllCases(const std::vector<int>& sizes, const Excluded& excluded = nullptr);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_ORACLE_PAIRWISE_H_
