#include "coordinator/fleet/node_registry.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/tls.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

// Between nodes until their links are measured: a tenth of what memory of one machine does, and a TCP round
// trip.
constexpr double kNetworkLatencySeconds = 50e-6;
constexpr double kNetworkBandwidth = 1e9;

constexpr size_t kLinkKeyCharacters = 16;

std::map<std::string, std::string> LinkKeysOf(const v1::Hello& hello) {
  std::map<std::string, std::string> texts, keys;
  if (hello.link_key().empty()) return keys;
  for (const v1::DeviceSpec& device : hello.devices()) {
    absl::StrAppend(&texts[device.kind()], device.name(), "\n");
  }
  for (const auto& [kind, devices] : texts) {
    keys[kind] = Sha256Hex(absl::StrCat(hello.version(), "\n", hello.link_key(), "\n", kind, "\n", devices))
                     .substr(0, kLinkKeyCharacters);
  }
  return keys;
}

void SetTime(int64_t wall_us, google::protobuf::Timestamp* time) {
  time->set_seconds(wall_us / 1'000'000);
  time->set_nanos(static_cast<int32_t>(wall_us % 1'000'000) * 1000);
}

}  // namespace

v1::NodeState NodeEntry::State() const {
  if (lost || link == nullptr) return v1::NODE_STATE_LOST;
  return Ready() ? v1::NODE_STATE_READY : v1::NODE_STATE_DRAINING;
}

const NodeEntry& NodeRegistry::Attach(const v1::Hello& hello, std::shared_ptr<NodeLink> link, int64_t stream,
                                      int64_t wall_us) {
  Changed();
  NodeEntry& node = nodes_[hello.node()];
  const bool known = node.known();
  const bool anew = known && node.hello.incarnation() != hello.incarnation();
  // To the end of its process, whatever it says meanwhile.
  node.draining_itself = hello.draining() || (known && !anew && node.draining_itself);
  node.hello = hello;
  node.devices.clear();
  for (const v1::DeviceSpec& device : hello.devices()) node.devices.push_back(DeviceFromProto(device));
  node.link_keys = LinkKeysOf(hello);
  SetAside(hello.node(), hello.set_aside());
  if (!known || anew || node.lost) node.attach_us = wall_us;
  node.link = std::move(link);
  node.stream = stream;
  node.lost = false;
  return node;
}

bool NodeRegistry::SetAside(const std::string& name,
                            const google::protobuf::Map<int32_t, std::string>& set_aside) {
  NodeEntry& node = nodes_.at(name);
  std::map<int, std::string> now(set_aside.begin(), set_aside.end());
  if (now == node.set_aside) return false;
  Changed();
  node.set_aside = std::move(now);
  return true;
}

const NodeEntry* NodeRegistry::Find(const std::string& name) const {
  const auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : &found->second;
}

NodeEntry* NodeRegistry::Change(const std::string& name) {
  const auto found = nodes_.find(name);
  if (found == nodes_.end()) return nullptr;
  Changed();
  return &found->second;
}

bool NodeRegistry::Knows(const std::string& name) const {
  const NodeEntry* node = Find(name);
  return node != nullptr && node->known();
}

void NodeRegistry::Forget(const std::string& name) {
  const auto found = nodes_.find(name);
  if (found == nodes_.end()) return;
  Changed();
  const bool drained = found->second.drained;
  nodes_.erase(found);
  if (drained) nodes_[name].drained = true;
}

NodeLink* NodeRegistry::LinkOf(const std::string& name) const {
  const NodeEntry* node = Find(name);
  return node == nullptr ? nullptr : node->link.get();
}

void NodeRegistry::SetDrained(const std::string& name, bool drained) {
  Changed();
  nodes_[name].drained = drained;
}

void NodeRegistry::Occupy(const std::string& node, int device, const std::string& job, int rank) {
  ++version_;
  nodes_[node].busy[device] = {job, rank};
}

void NodeRegistry::Release(const std::string& job) {
  ++version_;
  for (auto& [name, node] : nodes_) {
    for (auto it = node.busy.begin(); it != node.busy.end();) {
      it = it->second.first == job ? node.busy.erase(it) : std::next(it);
    }
  }
}

void NodeRegistry::SetLinks(LinkTable links) {
  ++version_;
  links_ = std::move(links);
}

bool NodeRegistry::Holds(const LinkEnds& ends, const LinkFigure& figure) const {
  const NodeEntry *a = Find(ends.a), *b = Find(ends.b);
  if (a == nullptr || b == nullptr) return false;
  const auto a_key = a->link_keys.find(ends.kind), b_key = b->link_keys.find(ends.kind);
  return a_key != a->link_keys.end() && b_key != b->link_keys.end() &&
         figure.key == LinkKeyOf(a_key->second, b_key->second);
}

void NodeRegistry::AddLinks(std::vector<v1::Node>* nodes) const {
  const auto add = [&](const std::string& name, const std::string& peer, const LinkEnds& ends,
                       const LinkFigure& figure) {
    const auto node =
        std::lower_bound(nodes->begin(), nodes->end(), name,
                         [](const v1::Node& n, const std::string& wanted) { return n.name() < wanted; });
    if (node == nodes->end() || node->name() != name) return;
    v1::NodeLink* link = node->add_links();
    link->set_peer(peer);
    link->set_device_kind(ends.kind);
    *link->mutable_rates() = LinkToProto(figure.rates);
    SetTime(figure.measured_us, link->mutable_measure_time());
    link->set_outdated(!Holds(ends, figure));
  };
  for (const auto& [ends, figure] : links_) {
    add(ends.a, ends.b, ends, figure);
    add(ends.b, ends.a, ends, figure);
  }
}

std::shared_ptr<const ClusterSnapshot> NodeRegistry::Snapshot() {
  if (snapshot_version_ == version_) return snapshot_;
  const auto cluster = std::make_shared<ClusterSnapshot>();
  cluster->network = {kNetworkLatencySeconds, kNetworkBandwidth};
  cluster->network_assumed = true;
  for (const auto& [ends, figure] : links_) {
    if (Holds(ends, figure)) cluster->links.push_back({ends.kind, ends.a, ends.b, figure.rates});
  }
  for (const auto& [name, node] : nodes_) {
    if (!node.known()) continue;
    NodeSnapshot snapshot;
    snapshot.name = name;
    snapshot.devices = node.devices;
    snapshot.ready = node.Ready();
    snapshot.local = LinkFromProto(node.hello.local());
    snapshot.cores = node.hello.cores();
    snapshot.start_seconds = node.hello.start_seconds();
    snapshot.labels.insert(node.hello.labels().begin(), node.hello.labels().end());
    snapshot.set_aside = node.set_aside;
    for (size_t i = 0; i < node.devices.size(); ++i)
      snapshot.free.push_back(node.busy.count(static_cast<int>(i)) == 0);
    cluster->nodes.push_back(std::move(snapshot));
  }
  snapshot_version_ = version_;
  snapshot_ = cluster;
  return snapshot_;
}

const std::string& NodeRegistry::KnownNodes() {
  if (known_made_ == known_version_) return known_;
  known_made_ = known_version_;
  known_.clear();
  for (const auto& [name, node] : nodes_) {
    if (!node.known()) continue;
    absl::StrAppend(&known_, name, " ", node.hello.incarnation(), node.Ready() ? " ready" : "");
    for (const auto& [device, why] : node.set_aside) absl::StrAppend(&known_, " -", device);
    absl::StrAppend(&known_, "\n");
  }
  return known_;
}

v1::Node NodeRegistry::ToProto(const std::string& name, const NodeEntry& node, double lease_left_seconds) {
  v1::Node proto;
  proto.set_name(name);
  proto.set_state(node.State());
  proto.set_version(node.hello.version());
  *proto.mutable_labels() = node.hello.labels();
  *proto.mutable_local() = node.hello.local();
  proto.set_cores(node.hello.cores());
  proto.set_start_seconds(node.hello.start_seconds());
  for (int i = 0; i < node.hello.devices_size(); ++i) {
    v1::NodeDevice* device = proto.add_devices();
    *device->mutable_spec() = node.hello.devices(i);
    if (const auto busy = node.busy.find(i); busy != node.busy.end()) {
      device->set_job(busy->second.first);
      device->set_rank(busy->second.second);
    }
    if (const auto aside = node.set_aside.find(i); aside != node.set_aside.end()) {
      device->set_set_aside(aside->second);
    }
  }
  SetTime(node.attach_us, proto.mutable_attach_time());
  proto.set_lease_left(std::max(0.0, lease_left_seconds));
  proto.set_drained(node.drained);
  return proto;
}

}  // namespace seqpar
