#include "coordinator/planner/device_filter.h"

#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"

namespace seqpar {
namespace {

constexpr size_t kNamed = 8;  // of the nodes that take no ranks; the rest is counted

bool HasLabels(const NodeSnapshot& node, const std::map<std::string, std::string>& labels) {
  for (const auto& [key, value] : labels) {
    const auto found = node.labels.find(key);
    if (found == node.labels.end() || found->second != value) return false;
  }
  return true;
}

template <typename Visit>
void ForEachDevice(const ClusterSnapshot& cluster, Visit visit) {
  for (const NodeSnapshot& node : cluster.nodes) {
    for (size_t d = 0; d < node.devices.size(); ++d) {
      if (node.TakesRanks(static_cast<int>(d))) visit(node, static_cast<int>(d));
    }
  }
}

std::string WhyNoLabel(const ClusterSnapshot& cluster, const std::string& key, const std::string& value) {
  std::set<std::string> keys, values;
  ForEachDevice(cluster, [&](const NodeSnapshot& node, int) {
    for (const auto& label : node.labels) {
      keys.insert(label.first);
      if (label.first == key) values.insert(label.second);
    }
  });
  if (values.count(value) != 0) return "";
  if (!values.empty()) return absl::StrCat("; attached nodes have ", key, " ", absl::StrJoin(values, ", "));
  const std::string nearest = NearestName(key, {keys.begin(), keys.end()});
  return absl::StrCat("; no attached node has a label ", key,
                      nearest.empty() ? "" : absl::StrCat(", nearest: ", nearest));
}

// "; w2, w3/0 take no ranks now": the nodes, and devices of others, that would be admitted if they did.
std::string WhoTakesNoRanks(const ClusterSnapshot& cluster, const DeviceFilter& filter) {
  std::vector<std::string> names;
  for (const NodeSnapshot& node : cluster.nodes) {
    for (int d = 0; d < static_cast<int>(node.devices.size()); ++d) {
      if (node.TakesRanks(d) || !filter.Suits(node, d)) continue;
      names.push_back(node.ready ? absl::StrCat(node.name, "/", d) : node.name);
      if (!node.ready) break;
    }
  }
  if (names.empty()) return "";
  const char* take = names.size() == 1 ? " takes" : " take";
  if (names.size() > kNamed) {
    const std::string rest = absl::StrCat("and ", names.size() - kNamed, " more");
    names.resize(kNamed);
    names.push_back(rest);
  }
  return absl::StrCat("; ", absl::StrJoin(names, ", "), take, " no ranks now");
}

}  // namespace

bool DeviceFilter::Admits(const NodeSnapshot& node, int device) const {
  return node.TakesRanks(device) && !(only_free && !node.free[device]) && Suits(node, device);
}

bool DeviceFilter::Suits(const NodeSnapshot& node, int device) const {
  const DeviceSpec& spec = node.devices[device];
  return spec.memory_bytes >= least_memory && (kind.empty() || spec.kind == kind) &&
         HasLabels(node, selector);
}

DeviceFilter FilterOf(const JobSpec& job, bool only_free) {
  DeviceFilter filter;
  filter.only_free = only_free;
  if (job.devices.kind != DeviceKind::kAuto) filter.kind = DeviceKindName(job.devices.kind);
  filter.selector = job.devices.selector;
  return filter;
}

std::string DevicesOf(int count, const DeviceFilter& filter) {
  std::string text =
      absl::StrCat(count, filter.kind.empty() ? "" : " ", filter.kind, count == 1 ? " device" : " devices");
  const char* before = " on nodes with ";
  for (const auto& [key, value] : filter.selector) {
    absl::StrAppend(&text, before, key, "=", value);
    before = ", ";
  }
  return text;
}

std::string WhyTooFew(const ClusterSnapshot& cluster, const DeviceFilter& filter) {
  DeviceFilter any = filter;
  any.only_free = false;
  any.least_memory = 0;
  bool matches = false;
  std::set<std::string> kinds;
  ForEachDevice(cluster, [&](const NodeSnapshot& node, int device) {
    matches = matches || any.Admits(node, device);
    kinds.insert(node.devices[device].kind);
  });
  std::string later = WhoTakesNoRanks(cluster, any);
  if (matches || !later.empty() || kinds.empty()) return later;
  std::string why;
  if (!filter.kind.empty() && kinds.count(filter.kind) == 0) {
    absl::StrAppend(&why, "; attached are ", absl::StrJoin(kinds, " and "), " devices");
  }
  for (const auto& [key, value] : filter.selector) absl::StrAppend(&why, WhyNoLabel(cluster, key, value));
  return why.empty() ? "; no attached node has all of it" : why;
}

}  // namespace seqpar
