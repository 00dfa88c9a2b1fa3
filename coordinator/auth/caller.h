// Who calls, and what that says of what they may do.
#ifndef SEQPAR_COORDINATOR_AUTH_CALLER_H_
#define SEQPAR_COORDINATOR_AUTH_CALLER_H_

#include <string>

namespace seqpar {

// Of users, each may do what those before it may; a worker may attach and nothing else.
enum class Role { kViewer, kSubmitter, kOperator, kWorker };
const char* RoleName(Role role);  // "viewer", ...

struct Caller {
  std::string name;  // of the token or certificate
  Role role = Role::kViewer;
  std::string tenant;  // whose jobs and data roots these are; empty: nobody's
  std::string node;    // the one that a worker may attach as; "*": any; empty: none
  std::string peer;    // where the call came from, "ipv4:10.0.0.7:51000"

  // Whether a job of `owner` exists for this caller.
  bool Sees(const std::string& owner) const { return role == Role::kOperator || owner == tenant; }
  bool MayAttachAs(const std::string& name_of_node) const {
    return node == "*" || (!node.empty() && node == name_of_node);
  }
};

// Everybody, where the coordinator asks nobody who they are.
inline Caller AnyCaller() { return {"anonymous", Role::kOperator, "", "*", ""}; }

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_AUTH_CALLER_H_
