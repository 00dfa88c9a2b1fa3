// Who may call what: one table. What is not in it is denied.
#ifndef SEQPAR_COORDINATOR_AUTH_RULES_H_
#define SEQPAR_COORDINATOR_AUTH_RULES_H_

#include <string>
#include <vector>

#include "coordinator/auth/caller.h"

namespace seqpar {

// The least that a caller must be.
enum class Access { kAnybody, kViewer, kSubmitter, kOperator, kWorker };

struct MethodRule {
  const char* path;  // as on the wire: "/package.Service/Method"
  Access access;
  bool change;  // audited, whether it succeeds or not
};

const std::vector<MethodRule>& MethodRules();
// Null: no such method, or none that anybody may call.
const MethodRule* FindRule(const std::string& path);
bool Allows(Access access, Role role);

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_AUTH_RULES_H_
