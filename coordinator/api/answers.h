// What the answers to several methods have in common.
#ifndef SEQPAR_COORDINATOR_API_ANSWERS_H_
#define SEQPAR_COORDINATOR_API_ANSWERS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "coordinator/auth/caller.h"

namespace seqpar {

inline absl::Status NotFound(const char* what, const std::string& id) {
  return MakeError(absl::StatusCode::kNotFound, reason::kNotFound,
                   absl::StrCat("there is no ", what, " ", id));
}

// Whose jobs to look at: everybody's for those who see them.
inline std::optional<std::string> TenantOf(const Caller& caller) {
  if (caller.role == Role::kOperator) return std::nullopt;
  return caller.tenant;
}

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_API_ANSWERS_H_
