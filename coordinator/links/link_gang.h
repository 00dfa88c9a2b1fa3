// A gang that measures a link: no job's, kept nowhere but here. A value; one thread. What it meets with is
// its own: where anything goes wrong it is ended, and the policy decides whether there is another.
#ifndef SEQPAR_COORDINATOR_LINKS_LINK_GANG_H_
#define SEQPAR_COORDINATOR_LINKS_LINK_GANG_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/job/cluster.h"
#include "coordinator/links/next_link.h"

namespace seqpar {

enum class LinkOutcome {
  kMeasured,
  kFailed,
  kInterrupted,  // a job came, or a node takes no more ranks
};
const char* LinkOutcomeName(LinkOutcome outcome);  // "measured", ...

class LinkGang {
 public:
  struct Rank {
    std::string node;
    int device = 0;
  };

  // `id`: in the place of a job's, never used before. The ranks of the two nodes take turns.
  LinkGang(std::string id, LinkWish wish, int64_t deadline_us);

  const std::string& id() const { return id_; }
  const LinkWish& wish() const { return wish_; }
  const std::vector<Rank>& ranks() const { return ranks_; }
  int64_t deadline_us() const { return deadline_us_; }
  bool Holds(const std::string& node, int rank) const {
    return rank >= 0 && rank < static_cast<int>(ranks_.size()) && ranks_[rank].node == node;
  }

  // All blobs by rank, once the last has come; repeated ones change nothing. REQUIRES: the rank exists.
  std::optional<std::vector<std::string>> AddBlob(int rank, const std::string& blob);
  // The figure, once every rank has finished. REQUIRES: the rank exists.
  std::optional<LinkRates> AddResult(int rank, const LinkRates& rates);

 private:
  const std::string id_;
  const LinkWish wish_;
  const int64_t deadline_us_;
  std::vector<Rank> ranks_;
  std::map<int, std::string> blobs_;
  std::map<int, LinkRates> results_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_LINKS_LINK_GANG_H_
