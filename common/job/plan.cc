#include "common/job/plan.h"

namespace seqpar {

TokenLayout Plan::MakeTokenLayout() const {
  std::vector<TokenShare> shares;
  shares.reserve(ranks.size());
  for (const RankPlan& rank : ranks) shares.push_back(rank.tokens);
  return TokenLayout(mesh, std::move(shares));
}

}  // namespace seqpar
