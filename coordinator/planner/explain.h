// Explanations: why this plan, why not the others, for people.
#ifndef SEQPAR_COORDINATOR_PLANNER_EXPLAIN_H_
#define SEQPAR_COORDINATOR_PLANNER_EXPLAIN_H_

#include <string>

#include "common/job/job.h"
#include "common/job/plan.h"
#include "coordinator/planner/search.h"

namespace seqpar {

// "ulysses U4", "ring R8 zigzag", "hybrid T8 x R2 striped, gather".
std::string NameOf(const Candidate& candidate);

// Why the first of `result.feasible` was chosen, in a sentence or two. REQUIRES: there is one.
std::string WhyChosen(const JobSpec& job, const SearchResult& result);

// The whole explanation: the chosen one and the ten next, rejections, and with `all` every candidate.
Explanation MakeExplanation(const JobSpec& job, const SearchResult& result, bool all);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_PLANNER_EXPLAIN_H_
