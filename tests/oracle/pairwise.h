// A covering array: few cases in which every pair of values of every two factors occurs.
#ifndef SEQPAR_TESTS_ORACLE_PAIRWISE_H_
#define SEQPAR_TESTS_ORACLE_PAIRWISE_H_

#include <vector>

namespace seqpar {

// sizes[f]: the number of values of factor f. A case is the index of a value for each factor. Greedy and
// deterministic: each case takes the first uncovered pair and fills the other factors with the values that
// cover most.
std::vector<std::vector<int>> PairwiseCases(const std::vector<int>& sizes);
// Every combination.
std::vector<std::vector<int>> AllCases(const std::vector<int>& sizes);

}  // namespace seqpar

#endif  // SEQPAR_TESTS_ORACLE_PAIRWISE_H_
