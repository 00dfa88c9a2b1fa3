// From what a call shows to who calls and whether they may: without the wire.
#ifndef SEQPAR_COORDINATOR_AUTH_AUTHENTICATOR_H_
#define SEQPAR_COORDINATOR_AUTH_AUTHENTICATOR_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "coordinator/auth/caller.h"
#include "coordinator/auth/token_file.h"

namespace seqpar {

// A certificate makes a worker of its owner by a URI among its alternative names: this and the node's name.
// One of a user has none, and proves nothing but that they may connect; `*` names every node.
inline constexpr char kNodeUriPrefix[] = "seqpar://node/";

struct Credentials {
  std::vector<std::string> certificate_uris;  // of a certificate that was verified
  std::string authorization;                  // header; empty: none
  // Until when the certificate counts, microseconds since the epoch; it was verified when the connection was
  // made, which may be long ago.
  int64_t certificate_end_us = std::numeric_limits<int64_t>::max();
};

// Thread-safe.
class Authenticator {
 public:
  // `clock` outlives it.
  Authenticator(std::unique_ptr<TokenFile> tokens, const Clock* clock)
      : tokens_(std::move(tokens)), clock_(clock) {}

  // A token counts before a certificate. UNAUTHENTICATED where neither says who calls, or not any more.
  absl::StatusOr<Caller> Identify(const Credentials& credentials) const;

  // Whether those who were `caller` when they began something long still are. UNAUTHENTICATED once their
  // token or certificate is over, their token was taken away, or says something else of them.
  absl::Status Confirm(const Credentials& credentials, const Caller& caller) const;

  // Whether the call may go on. PERMISSION_DENIED for a method without a rule, whoever calls, and for a role
  // that is not enough; UNAUTHENTICATED as above.
  absl::Status Admit(const std::string& method, const Credentials& credentials) const;

 private:
  const std::unique_ptr<TokenFile> tokens_;
  const Clock* const clock_;
};

}  // namespace seqpar

#endif  // SEQPAR_COORDINATOR_AUTH_AUTHENTICATOR_H_
