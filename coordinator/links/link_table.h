// What the links between nodes were measured to do. Values, stored as text.
#ifndef SEQPAR_COORDINATOR_LINKS_LINK_TABLE_H_
#define SEQPAR_COORDINATOR_LINKS_LINK_TABLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <tuple>

#include "common/job/cluster.h"

namespace seqpar {

// Two nodes, and the kind of the devices that send. `a` comes before `b`.
struct LinkEnds {
  std::string kind, a, b;
  friend bool operator<(const LinkEnds& x, const LinkEnds& y) {
    return std::tie(x.kind, x.a, x.b) < std::tie(y.kind, y.a, y.b);
  }
  friend bool operator==(const LinkEnds& x, const LinkEnds& y) {
    return std::tie(x.kind, x.a, x.b) == std::tie(y.kind, y.a, y.b);
  }
};
// In any order.
LinkEnds EndsOf(const std::string& kind, const std::string& node, const std::string& other);

struct LinkFigure {
  // Of both ends as they were (LinkKeyOf): where it is another now, the figure says nothing any more.
  std::string key;
  LinkRates rates;
  int64_t measured_us = 0;  // wall
};
using LinkTable = std::map<LinkEnds, LinkFigure>;

// From the keys of the ends, in the order of LinkEnds.
std::string LinkKeyOf(const std::string& a_key, const std::string& b_key);

// One line a link; FromText(ToText(t)) is t. What cannot be read is left out.
std::string LinksToText(const LinkTable& links);
LinkTable LinksFromText(const std::string& text);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_LINKS_LINK_TABLE_H_
