// The nodes that attached: what they have, and which device runs what. One thread.
#ifndef SEQPAR_COORDINATOR_FLEET_NODE_REGISTRY_H_
#define SEQPAR_COORDINATOR_FLEET_NODE_REGISTRY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/job/cluster.h"
#include "coordinator/fleet/node_link.h"
#include "coordinator/links/link_table.h"
#include "seqpar/v1/fleet.pb.h"
#include "seqpar/v1/service.pb.h"

namespace seqpar {

struct NodeEntry {
  v1::Hello hello;
  std::vector<DeviceSpec> devices;
  int64_t attach_us = 0;  // wall
  int64_t stream = 0;     // 0: no stream now
  std::shared_ptr<NodeLink> link;
  bool drained = false;                             // by a user; durable
  bool draining_itself = false;                     // was told to stop, and has said so
  bool lost = false;                                // its lease is over
  std::map<int, std::pair<std::string, int>> busy;  // device -> (job, rank)
  std::map<int, std::string> set_aside;             // devices that take no ranks now, and why
  // By kind of its devices: of all that its links to other nodes depend on. None: it cannot measure them.
  std::map<std::string, std::string> link_keys;

  // False for one that this process has only heard of: from the store, not from the node itself.
  bool known() const { return !hello.node().empty(); }
  bool Ready() const { return !lost && link != nullptr && !drained && !draining_itself; }
  v1::NodeState State() const;
};

class NodeRegistry {
 public:
  // Registers a node that attaches, or attaches again. What it is and runs now replaces what was known.
  const NodeEntry& Attach(const v1::Hello& hello, std::shared_ptr<NodeLink> link, int64_t stream,
                          int64_t wall_us);
  // Null where nothing was ever heard of a node of this name.
  const NodeEntry* Find(const std::string& name) const;
  // The same, to be changed: by whoever asks, at once.
  NodeEntry* Change(const std::string& name);
  const std::map<std::string, NodeEntry>& nodes() const { return nodes_; }
  // Whether the node itself was heard of, and has not been forgotten since.
  bool Knows(const std::string& name) const;
  // Keeps of a node what a process that has just begun would: whether a user has drained it. REQUIRES: it has
  // no link, and none of its devices is taken.
  void Forget(const std::string& name);
  // Grows with every change of any of them.
  int64_t version() const { return version_; }

  // Keeps which devices of the node are set aside; false where nothing changed.
  bool SetAside(const std::string& name, const google::protobuf::Map<int32_t, std::string>& set_aside);

  // The node's link; null where it has none.
  NodeLink* LinkOf(const std::string& name) const;

  // A drain holds whether or not the node is here.
  void SetDrained(const std::string& name, bool drained);
  void Occupy(const std::string& node, int device, const std::string& job, int rank);
  void Release(const std::string& job);

  // What was measured of links between nodes, also between those that are not here now.
  void SetLinks(LinkTable links);
  const LinkTable& links() const { return links_; }
  // Both ends are what they were when it was measured.
  bool Holds(const LinkEnds& ends, const LinkFigure& figure) const;
  // To each of `nodes`, which are in the order of their names, what is known of its links.
  void AddLinks(std::vector<v1::Node>* nodes) const;

  // Every node that attached, those that take no new ranks (lost, draining) marked as such. Until links are
  // measured, the network between nodes is taken to have 50 us and 1 GB/s. It is made once for each version.
  std::shared_ptr<const ClusterSnapshot> Snapshot();
  // Two that are equal: Snapshot has the same daemons, of which the same are ready, with the same devices.
  // What is free of them may differ.
  const std::string& KnownNodes();

  static v1::Node ToProto(const std::string& name, const NodeEntry& node, double lease_left_seconds);

 private:
  // Of something else than what is free.
  void Changed() { known_version_ = ++version_; }

  std::map<std::string, NodeEntry> nodes_;
  LinkTable links_;
  int64_t version_ = 1, known_version_ = 1;
  // What was made of them, and of which version.
  std::shared_ptr<const ClusterSnapshot> snapshot_;
  int64_t snapshot_version_ = 0;
  std::string known_;
  int64_t known_made_ = 0;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_FLEET_NODE_REGISTRY_H_
