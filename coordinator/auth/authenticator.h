// From what a call shows to who calls and whether they may: without the wire.
#ifndef SEQPAR_COORDINATOR_AUTH_AUTHENTICATOR_H_
#define SEQPAR_COORDINATOR_AUTH_AUTHENTICATOR_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/auth/caller.h"
#include "coordinator/auth/token_file.h"

namespace seqpar {

// A certificate makes a worker of its owner by a URI among its alternative names: this and the node's name.
// One of a user has none, and proves nothing but that they may connect; `*` names every node.
inline constexpr char kNodeUriPrefix[] = "seqpar://node/";

struct Credentials {
  std::vector<std::string> certificate_uris;  // of a certificate that was verified
  std::string authorization;                  // header; empty: none
};

// Thread-safe.
class Authenticator {
 public:
  explicit Authenticator(std::unique_ptr<TokenFile> tokens) : tokens_(std::move(tokens)) {}

  // A token counts before a certificate. UNAUTHENTICATED where neither says who calls.
  absl::StatusOr<Caller> Identify(const Credentials& credentials) const;

  // Whether those who were `caller` when they began something long still are. UNAUTHENTICATED once their
  // token is over, was taken away, or says something else of them.
  absl::Status Confirm(const Credentials& credentials, const Caller& caller) const;

  // Whether the call may go on. PERMISSION_DENIED for a method without a rule, whoever calls, and for a role
  // that is not enough; UNAUTHENTICATED as above.
  absl::Status Admit(const std::string& method, const Credentials& credentials) const;

 private:
  const std::unique_ptr<TokenFile> tokens_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_AUTH_AUTHENTICATOR_H_
