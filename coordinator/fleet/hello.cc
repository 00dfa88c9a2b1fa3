#include "coordinator/fleet/hello.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "common/job/proto.h"

namespace seqpar {
namespace {

constexpr size_t kNodeNameMax = 253;
// Both go up by one at a time, and stay far from the end of their types when they do.
constexpr int64_t kTermMax = int64_t{1} << 32;
constexpr int32_t kAttemptMax = 1 << 30;

constexpr char kAsNode[] = "nodes[0]";

// What it offers, judged as a node of a cluster file.
std::vector<Violation> ViolationsOfNode(const v1::Hello& hello) {
  v1::Cluster cluster;
  v1::NodeSpec* node = cluster.add_nodes();
  node->set_name("node");  // its own name is judged apart, by a stricter rule
  *node->mutable_devices() = hello.devices();
  // Nobody has measured the link of a device to itself.
  if (hello.devices_size() > 1) *node->mutable_local() = hello.local();
  node->set_cores(hello.cores());
  node->set_start_seconds(hello.start_seconds());
  std::vector<Violation> violations = ViolationsOf(ClusterFromProto(cluster).status());
  for (Violation& violation : violations) {
    if (violation.field.rfind(kAsNode, 0) == 0) violation.field.replace(0, sizeof(kAsNode) - 1, "hello");
  }
  return violations;
}

}  // namespace

bool IsNodeName(const std::string& name) {
  return !name.empty() && name.size() <= kNodeNameMax && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
}

absl::Status CheckHello(const v1::Hello& hello) {
  std::vector<Violation> violations = ViolationsOfNode(hello);
  if (!IsNodeName(hello.node())) {
    violations.push_back({"hello.node", "must be letters, digits, '-', '_' and '.', at most 253", ""});
  }
  if (hello.highest_term() < 0 || hello.highest_term() > kTermMax) {
    violations.push_back({"hello.highest_term",
                          absl::StrCat("is ", hello.highest_term(), ", which no coordinator has had"), "0"});
  }
  const std::map<std::string, int32_t> attempts(hello.highest_attempts().begin(),
                                                hello.highest_attempts().end());  // in order
  for (const auto& [job, attempt] : attempts) {
    if (attempt >= 0 && attempt <= kAttemptMax) continue;
    violations.push_back({absl::StrCat("hello.highest_attempts.", job),
                          absl::StrCat("is ", attempt, ", which no job has had"), "0"});
  }
  return violations.empty() ? absl::OkStatus() : InvalidInput(reason::kInvalidArgument, violations);
}

}  // namespace seqpar
