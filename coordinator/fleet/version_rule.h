// Which workers a coordinator serves while a fleet is upgraded, by their versions. Pure.
#ifndef SEQPAR_COORDINATOR_FLEET_VERSION_RULE_H_
#define SEQPAR_COORDINATOR_FLEET_VERSION_RULE_H_

#include <string>

#include "absl/status/status.h"
#include "common/base/version.h"

namespace seqpar {
namespace reason {
inline constexpr char kVersionSkew[] = "VERSION_SKEW";
}

// Versions are MAJOR.MINOR.PATCH, with "-rc1" or "+build" after it or not. MAJOR.MINOR is the release:
// patches of one release understand each other.
struct VersionRule {
  std::string own = kVersion;
  std::string oldest = kOldestServed;  // what is older is refused
};

// OK where the coordinator may talk to a worker of that version: of its own release, or of one not below
// rule.oldest. Else FAILED_PRECONDITION (VERSION_SKEW), which names the node, both versions and what to
// upgrade: an older worker to the coordinator's release; for a newer one the coordinator, which is upgraded
// first. A version that cannot be read is refused as well. REQUIRES: the rule's own versions can be read.
absl::Status ServesWorker(const VersionRule& rule, const std::string& node, const std::string& version);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_FLEET_VERSION_RULE_H_
