#include "coordinator/auth/authenticator.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "coordinator/auth/rules.h"

namespace seqpar {
namespace {

constexpr char kBearer[] = "Bearer ";

absl::Status Denied(const std::string& message) {
  return MakeError(absl::StatusCode::kPermissionDenied, reason::kPermissionDenied, message);
}

const char* NameOf(Access access) {
  switch (access) {
    case Access::kWorker:
      return "worker";
    case Access::kOperator:
      return "operator";
    case Access::kSubmitter:
      return "submitter or operator";
    default:
      return "viewer, submitter or operator";
  }
}

}  // namespace

absl::StatusOr<Caller> Authenticator::Identify(const Credentials& credentials) const {
  const std::string& header = credentials.authorization;
  if (!header.empty()) {
    if (!absl::StartsWith(header, kBearer)) {
      return MakeError(absl::StatusCode::kUnauthenticated, reason::kUnauthenticated,
                       "the authorization header is not \"Bearer TOKEN\"");
    }
    return tokens_->Find(header.substr(sizeof(kBearer) - 1));
  }
  for (const std::string& uri : credentials.certificate_uris) {
    if (!absl::StartsWith(uri, kNodeUriPrefix)) continue;
    if (clock_->WallMicros() >= credentials.certificate_end_us) {
      return MakeError(absl::StatusCode::kUnauthenticated, reason::kUnauthenticated,
                       absl::StrCat("the certificate of ", uri, " on this connection has expired"));
    }
    Caller caller;
    caller.name = uri;
    caller.role = Role::kWorker;
    caller.node = uri.substr(sizeof(kNodeUriPrefix) - 1);
    return caller;
  }
  return MakeError(
      absl::StatusCode::kUnauthenticated, reason::kUnauthenticated,
      "nothing says who calls: users show a token (SEQPAR_TOKEN_FILE), workers one or a certificate that "
      "names their node");
}

absl::Status Authenticator::Confirm(const Credentials& credentials, const Caller& caller) const {
  SEQPAR_ASSIGN_OR_RETURN(const Caller now, Identify(credentials));
  if (now.role == caller.role && now.tenant == caller.tenant && now.node == caller.node) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kUnauthenticated, reason::kUnauthenticated,
                   absl::StrCat("what this token of ", caller.name, " may do has changed"));
}

absl::Status Authenticator::Admit(const std::string& method, const Credentials& credentials) const {
  const MethodRule* rule = FindRule(method);
  if (rule == nullptr) return Denied(absl::StrCat("nobody may call ", method));
  if (rule->access == Access::kAnybody) return absl::OkStatus();
  SEQPAR_ASSIGN_OR_RETURN(const Caller caller, Identify(credentials));
  if (Allows(rule->access, caller.role)) return absl::OkStatus();
  return Denied(absl::StrCat(caller.name, " is ", RoleName(caller.role), "; ", method, " needs ",
                             NameOf(rule->access)));
}

}  // namespace seqpar
