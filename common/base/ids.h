// Identifiers as types of their own, so that a node is never passed where a job is meant.
#ifndef SEQPAR_COMMON_BASE_IDS_H_
#define SEQPAR_COMMON_BASE_IDS_H_

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

namespace seqpar {

template <typename Tag>
class StringId {
 public:
  StringId() = default;
  explicit StringId(std::string value) : value_(std::move(value)) {}
  const std::string& value() const { return value_; }
  bool empty() const { return value_.empty(); }
  friend bool operator==(const StringId&, const StringId&) = default;
  friend auto operator<=>(const StringId&, const StringId&) = default;

 private:
  std::string value_;
};

using JobId = StringId<struct JobIdTag>;    // "j-" and 16 hex digits, made by the coordinator
using NodeId = StringId<struct NodeIdTag>;  // the worker's --node-name

// One try at running a job. Numbered from 1, durable, never reused.
using Attempt = int32_t;

// A device within a node: index from 0.
struct DeviceId {
  NodeId node;
  int index = 0;
  friend bool operator==(const DeviceId&, const DeviceId&) = default;
  friend auto operator<=>(const DeviceId&, const DeviceId&) = default;
};

}  // namespace seqpar

template <typename Tag>
struct std::hash<seqpar::StringId<Tag>> {
  size_t operator()(const seqpar::StringId<Tag>& id) const { return std::hash<std::string>()(id.value()); }
};

#endif  // SEQPAR_COMMON_BASE_IDS_H_
