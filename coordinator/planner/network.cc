#include "coordinator/planner/network.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace seqpar {
namespace {

using ZonePair = std::pair<std::string, std::string>;

constexpr char kAssumed[] = "assumed, not measured yet";

std::string ZoneOf(const NodeSnapshot& node) {
  const auto zone = node.labels.find(kZoneLabel);
  return zone == node.labels.end() ? "" : zone->second;
}

ZonePair PairOf(const std::string& a, const std::string& b) { return std::minmax(a, b); }

// The median of each.
LinkRates MedianOf(const std::vector<LinkRates>& all) {
  std::vector<double> latencies, bandwidths;
  for (const LinkRates& rates : all) {
    latencies.push_back(rates.latency);
    bandwidths.push_back(rates.bandwidth);
  }
  const auto middle = static_cast<std::ptrdiff_t>(all.size() / 2);
  std::nth_element(latencies.begin(), latencies.begin() + middle, latencies.end());
  std::nth_element(bandwidths.begin(), bandwidths.begin() + middle, bandwidths.end());
  return {latencies[middle], bandwidths[middle]};
}

// The worst of what it was given, and where the least bandwidth came from.
class Worst {
 public:
  void Add(const LinkRates& rates, const std::string& from) {
    if (!any_ || rates.bandwidth < worst_.rates.bandwidth) {
      worst_.rates.bandwidth = rates.bandwidth;
      worst_.from = from;
    }
    worst_.rates.latency = any_ ? std::max(worst_.rates.latency, rates.latency) : rates.latency;
    any_ = true;
  }
  const GangNetwork& network() const { return worst_; }

 private:
  bool any_ = false;
  GangNetwork worst_;
};

struct Member {
  std::string zone;
  LinkRates best;         // of its links to anywhere
  int measured_here = 0;  // with others of the gang
};

}  // namespace

GangNetwork NetworkBetween(const ClusterSnapshot& cluster, const std::string& kind,
                           const std::vector<int>& nodes) {
  const std::string otherwise = cluster.network_assumed ? kAssumed : "";
  if (cluster.links.empty()) return {cluster.network, otherwise};
  std::map<std::string, std::string> zones;  // of every node
  for (const NodeSnapshot& node : cluster.nodes) zones[node.name] = ZoneOf(node);
  std::map<std::string, Member> members;
  std::map<std::string, int64_t> sizes;  // of zones, within the gang
  for (const int index : nodes) {
    const std::string& name = cluster.nodes[index].name;
    members[name].zone = zones[name];
    ++sizes[zones[name]];
  }

  Worst worst;
  std::map<ZonePair, std::vector<LinkRates>> measured;  // anywhere
  std::map<ZonePair, int64_t> here;                     // within the gang
  const auto improve = [&](const std::string& name, const LinkRates& rates) {
    const auto member = members.find(name);
    if (member == members.end()) return;
    LinkRates& best = member->second.best;
    best.latency = best.bandwidth == 0 ? rates.latency : std::min(best.latency, rates.latency);
    best.bandwidth = std::max(best.bandwidth, rates.bandwidth);
  };
  for (const NetworkLink& link : cluster.links) {
    const auto a_zone = zones.find(link.a), b_zone = zones.find(link.b);
    if (link.kind != kind || a_zone == zones.end() || b_zone == zones.end()) continue;
    const ZonePair pair = PairOf(a_zone->second, b_zone->second);
    measured[pair].push_back(link.rates);
    improve(link.a, link.rates);
    improve(link.b, link.rates);
    const auto a = members.find(link.a), b = members.find(link.b);
    if (a == members.end() || b == members.end()) continue;
    ++here[pair];
    ++a->second.measured_here;
    ++b->second.measured_here;
    worst.Add(link.rates, absl::StrCat("measured between ", link.a, " and ", link.b));
  }

  for (const auto& [name, member] : members) {
    const bool all = member.measured_here + 1 == static_cast<int>(members.size());
    if (all || member.best.bandwidth == 0) continue;
    worst.Add(member.best, absl::StrCat("measured between ", name, " and others"));
  }
  for (const auto& [zone, size] : sizes) {
    for (const auto& [other, other_size] : sizes) {
      if (other < zone) continue;
      const ZonePair pair = PairOf(zone, other);
      const int64_t pairs = zone == other ? size * (size - 1) / 2 : size * other_size;
      if (here[pair] >= pairs) continue;
      const auto known = measured.find(pair);
      if (known == measured.end()) {
        worst.Add(cluster.network, otherwise);
      } else {
        worst.Add(MedianOf(known->second), zone == other ? "measured on other nodes of the zone"
                                                         : "measured on other nodes of the zones");
      }
    }
  }
  return worst.network();
}

}  // namespace seqpar
