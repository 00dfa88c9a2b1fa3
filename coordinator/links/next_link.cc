#include "coordinator/links/next_link.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace seqpar {
namespace {

constexpr int kDoublingsMax = 8;

// One kind of device: who has it, and what is known of the links between them.
class KindView {
 public:
  KindView(const std::string& kind, const std::vector<LinkNode>& nodes, const LinkTable& links,
           const LinkTroubles& troubles, const LinkPolicy& policy, int64_t now_us)
      : kind_(kind), links_(links), policy_(policy), now_us_(now_us) {
    for (const LinkNode& node : nodes) {
      const auto found = node.kinds.find(kind);
      if (found == node.kinds.end()) continue;
      Member& member = members_[node.name];
      member.node = &node;
      member.kind = &found->second;
      member.until_us = troubles.UntilUs(kind, node.name);
      zones_[node.zone].push_back(&member);
    }
    for (auto it = links.lower_bound({kind, "", ""}); it != links.end() && it->first.kind == kind; ++it) {
      Count(it->first, it->second);
    }
  }

  std::optional<LinkWish> WithinZones() {
    for (auto& entry : zones_) {
      const std::vector<Member*>& zone = entry.second;
      const int need = std::min(policy_.peers, static_cast<int>(zone.size()) - 1);
      std::vector<Member*> wanting = Free(zone);
      const std::vector<Member*> partners = wanting;
      wanting.erase(
          std::remove_if(wanting.begin(), wanting.end(), [&](const Member* m) { return m->links >= need; }),
          wanting.end());
      for (const Member* a : wanting) {
        if (const Member* b = PartnerOf(*a, partners)) return Wish(*a, *b);
      }
      if (Needs(zone, need)) WaitForTroubles(zone);
    }
    return std::nullopt;
  }

  std::optional<LinkWish> BetweenZones() {
    const int need = std::min(policy_.peers, static_cast<int>(zones_.size()) - 1);
    std::vector<std::pair<int, std::string>> order;  // fewest links first
    for (const auto& entry : zones_) order.emplace_back(Zones(entry.first), entry.first);
    std::sort(order.begin(), order.end());
    if (order.empty() || order.front().first >= need) return std::nullopt;
    for (const auto& [have, zone] : order) {
      if (have >= need) break;
      const std::vector<Member*> mine = Free(zones_[zone]);
      for (const auto& other_entry : order) {
        const std::string& other = other_entry.second;
        if (other == zone || measured_zones_.count(std::minmax(zone, other)) != 0) continue;
        const std::vector<Member*> theirs = Free(zones_[other]);
        if (!mine.empty() && !theirs.empty()) return Wish(*mine.front(), *theirs.front());
      }
    }
    for (const auto& entry : zones_) WaitForTroubles(entry.second);
    return std::nullopt;
  }

  int64_t look_again_us() const { return look_again_us_; }

 private:
  struct Member {
    const LinkNode* node = nullptr;
    const LinkNode::Kind* kind = nullptr;
    int64_t until_us = 0;
    int links = 0;  // to others of its zone, whose figures hold
  };

  std::string KeyOf(const LinkEnds& ends) const {
    return LinkKeyOf(members_.at(ends.a).kind->key, members_.at(ends.b).kind->key);
  }

  bool Holds(const LinkEnds& ends, const LinkFigure& figure) const {
    return figure.key == KeyOf(ends) && now_us_ < figure.measured_us + policy_.age_us;
  }

  void Count(const LinkEnds& ends, const LinkFigure& figure) {
    const auto a = members_.find(ends.a), b = members_.find(ends.b);
    if (a == members_.end() || b == members_.end() || !Holds(ends, figure)) return;
    look_again_us_ = std::min(look_again_us_, figure.measured_us + policy_.age_us);
    const std::string &a_zone = a->second.node->zone, &b_zone = b->second.node->zone;
    if (a_zone == b_zone) {
      ++a->second.links;
      ++b->second.links;
    } else {
      measured_zones_.insert(std::minmax(a_zone, b_zone));
    }
  }

  // Those that may be measured now, the one with the fewest links first.
  std::vector<Member*> Free(const std::vector<Member*>& zone) const {
    std::vector<Member*> free;
    for (Member* member : zone) {
      if (member->node->idle && now_us_ >= member->until_us) free.push_back(member);
    }
    std::sort(free.begin(), free.end(), [](const Member* x, const Member* y) {
      return std::tie(x->links, x->node->name) < std::tie(y->links, y->node->name);
    });
    return free;
  }

  // One whose figure is outdated rather than one that never was measured, so that the table does not grow
  // with time; then the one with the fewest links.
  const Member* PartnerOf(const Member& a, const std::vector<Member*>& partners) const {
    const Member* best = nullptr;
    for (const Member* b : partners) {
      if (b == &a) continue;
      const LinkEnds ends = EndsOf(kind_, a.node->name, b->node->name);
      const auto known = links_.find(ends);
      if (known == links_.end()) {
        if (best == nullptr) best = b;
      } else if (!Holds(ends, known->second)) {
        return b;
      }
    }
    return best;
  }

  int Zones(const std::string& zone) const {
    return static_cast<int>(std::count_if(measured_zones_.begin(), measured_zones_.end(), [&](const auto& z) {
      return z.first == zone || z.second == zone;
    }));
  }

  static bool Needs(const std::vector<Member*>& zone, int need) {
    return std::any_of(zone.begin(), zone.end(), [&](const Member* m) { return m->links < need; });
  }

  void WaitForTroubles(const std::vector<Member*>& zone) {
    for (const Member* member : zone) {
      if (member->until_us > now_us_) look_again_us_ = std::min(look_again_us_, member->until_us);
    }
  }

  LinkWish Wish(const Member& x, const Member& y) const {
    LinkWish wish;
    wish.ends = EndsOf(kind_, x.node->name, y.node->name);
    wish.key = KeyOf(wish.ends);
    wish.a_devices = members_.at(wish.ends.a).kind->devices;
    wish.b_devices = members_.at(wish.ends.b).kind->devices;
    const size_t each = std::min({wish.a_devices.size(), wish.b_devices.size(),
                                  static_cast<size_t>(std::max(1, policy_.devices_max))});
    wish.a_devices.resize(each);
    wish.b_devices.resize(each);
    return wish;
  }

  const std::string& kind_;
  const LinkTable& links_;
  const LinkPolicy& policy_;
  const int64_t now_us_;
  std::map<std::string, Member> members_;
  std::map<std::string, std::vector<Member*>> zones_;
  std::set<std::pair<std::string, std::string>> measured_zones_;
  int64_t look_again_us_ = INT64_MAX;
};

}  // namespace

void LinkTroubles::Failed(const LinkEnds& ends, const LinkPolicy& policy, int64_t now_us) {
  for (const std::string& node : {ends.a, ends.b}) {
    Trouble& trouble = troubles_[{ends.kind, node}];
    trouble.until_us = now_us + (policy.backoff_us << std::min(trouble.failures, kDoublingsMax));
    ++trouble.failures;
  }
}

void LinkTroubles::Succeeded(const LinkEnds& ends) {
  for (const std::string& node : {ends.a, ends.b}) troubles_.erase({ends.kind, node});
}

void LinkTroubles::Forget(const std::string& node) {
  std::erase_if(troubles_, [&](const auto& trouble) { return trouble.first.second == node; });
}

int64_t LinkTroubles::UntilUs(const std::string& kind, const std::string& node) const {
  const auto found = troubles_.find({kind, node});
  return found == troubles_.end() ? 0 : found->second.until_us;
}

NextLink FindNextLink(const std::vector<LinkNode>& nodes, const LinkTable& links,
                      const LinkTroubles& troubles, const LinkPolicy& policy, int64_t now_us) {
  std::set<std::string> kinds;
  for (const LinkNode& node : nodes) {
    for (const auto& entry : node.kinds) kinds.insert(entry.first);
  }
  NextLink next;
  std::optional<LinkWish> between;
  for (const std::string& kind : kinds) {
    KindView view(kind, nodes, links, troubles, policy, now_us);
    next.wish = view.WithinZones();
    if (next.wish) return next;
    if (!between) between = view.BetweenZones();
    next.look_again_us = std::min(next.look_again_us, view.look_again_us());
  }
  next.wish = between;
  return next;
}

}  // namespace seqpar
