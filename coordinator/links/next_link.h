// Which link between two nodes is to be measured next. Values in, values out.
//
// A thousand nodes have half a million pairs, so not each is measured. Nodes with the same label `zone` (or
// without one) are taken to be alike: each node is measured with a few others of its zone, so that one with a
// bad link is found, and each zone with a few other zones, between one node of each. That is about
// `peers` * nodes / 2 pairs, and up to `peers` + 1 nodes every pair. One pair at a time, so that no
// measurement disturbs another.
#ifndef SEQPAR_COORDINATOR_LINKS_NEXT_LINK_H_
#define SEQPAR_COORDINATOR_LINKS_NEXT_LINK_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/links/link_table.h"

namespace seqpar {

struct LinkPolicy {
  bool on = true;
  int64_t idle_us = 30'000'000;                         // nothing has waited for devices for so long
  int64_t age_us = int64_t{7} * 24 * 3600 * 1'000'000;  // figures are measured again when they are older
  int peers = 3;
  // After a failure nothing is measured with either of its nodes for so long; doubles with each, at most
  // 256-fold.
  int64_t backoff_us = 60'000'000;
  int64_t timeout_us = 30'000'000;  // of a measurement, bootstrap included
  double seconds = 1;               // that the ranks send to each other, about
  int devices_max = 8;              // of each node
};

// What the policy sees of a node that could be measured.
struct LinkNode {
  std::string name, zone;
  bool idle = false;  // takes ranks, and no device of it has one
  struct Kind {
    std::string key;           // of everything that the figure depends on
    std::vector<int> devices;  // that take ranks
  };
  std::map<std::string, Kind> kinds;  // by kind of device
};

// What failed of late, by kind and node; a success wipes it out.
class LinkTroubles {
 public:
  void Failed(const LinkEnds& ends, const LinkPolicy& policy, int64_t now_us);
  void Succeeded(const LinkEnds& ends);
  void Forget(const std::string& node);
  // From when on the node may be measured; 0: at any time.
  int64_t UntilUs(const std::string& kind, const std::string& node) const;

 private:
  struct Trouble {
    int failures = 0;
    int64_t until_us = 0;
  };
  std::map<std::pair<std::string, std::string>, Trouble> troubles_;
};

struct LinkWish {
  LinkEnds ends;
  std::string key;
  std::vector<int> a_devices, b_devices;  // as many of each
};

struct NextLink {
  std::optional<LinkWish> wish;
  // When a figure is too old, or a node that failed may be tried again: until then the same nodes give the
  // same answer.
  int64_t look_again_us = INT64_MAX;
};

// `now_us`: wall, as all times here. `nodes`: in any order, names differ.
NextLink FindNextLink(const std::vector<LinkNode>& nodes, const LinkTable& links,
                      const LinkTroubles& troubles, const LinkPolicy& policy, int64_t now_us);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_LINKS_NEXT_LINK_H_
